"""Batch room: many media files and many questions → one JSON line each, resumable, whatever the files hold.

Nothing is imported here: the processes that decode live in this room, and need neither the model nor what it brings.
"""
