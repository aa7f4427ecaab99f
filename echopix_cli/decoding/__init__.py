"""Decoding room: media files are read in processes that may crash or hang; clips come back in shared memory.

Nothing is imported here: the processes that decode live in this room, and need neither the model nor what it brings.
"""
