"""The training room: fit a sieve, and the small bundled model, on rendered scenes."""
