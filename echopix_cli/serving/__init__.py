"""Serving room: one loaded model that stays, and those who ask it.

The client's half (``place``, ``messages``, ``wire``, ``client``) imports neither torch nor transformers. Nothing is
imported here.
"""
