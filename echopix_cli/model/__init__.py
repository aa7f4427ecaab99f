"""The model room: EchoingPixels, the family's Qwen2.5-Omni thinker with a sieve between towers and decoder."""
