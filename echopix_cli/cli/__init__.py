"""The command line.

``--help`` builds every command, so their modules import inside their functions what only the work needs, and do
without ``from __future__ import annotations``: typer would evaluate the strings of each signature four times over.
"""
