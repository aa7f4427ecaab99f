"""Batch room: many media files and many questions → one JSON line each, resumable, whatever the files hold."""
