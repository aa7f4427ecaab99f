"""Readers of the field's benchmark files as they lie on disk, one module a benchmark; all are listed here.

A reader says which entries are its own and what an entry asks. Everything else is the same for all: what the files are
kept in (``containers``), how fields are read (``fields``), and what makes a question one that can be asked
(``reading``).
"""

from __future__ import annotations

from echopix_cli.evaluation.readers.avut import READER as _AVUT
from echopix_cli.evaluation.readers.daily_omni import READER as _DAILY_OMNI
from echopix_cli.evaluation.readers.lvomnibench import READER as _LVOMNIBENCH
from echopix_cli.evaluation.readers.music_avqa import READER as _MUSIC_AVQA
from echopix_cli.evaluation.readers.omnivideobench import READER as _OMNIVIDEOBENCH
from echopix_cli.evaluation.readers.values import Benchmark, Item, Reader
from echopix_cli.evaluation.readers.video_mme import READER as _VIDEO_MME
from echopix_cli.evaluation.readers.worldsense import READER as _WORLDSENSE

READERS = {
    reader.benchmark.name: reader
    for reader in (_LVOMNIBENCH, _OMNIVIDEOBENCH, _DAILY_OMNI, _WORLDSENSE, _VIDEO_MME, _AVUT, _MUSIC_AVQA)
}

__all__ = ["READERS", "Benchmark", "Item", "Reader"]
