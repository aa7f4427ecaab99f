"""What budgets and models cost on this machine: seconds, speed-ups and bytes, from one loop of interleaved trials."""
