"""A ceiling on the memory that reading one file may take.

Formats hold what decoders unpack before anybody can look at it: a compressed movie header, the text of a PNG. Half a
megabyte becomes half a gigabyte, and there may be a hundred of them. No option of FFmpeg bounds this, the system does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from echopix_cli.errors import MediaError
from echopix_cli.files import stated_bytes
from echopix_cli.sizes import binary

_STATUS, _MEMINFO = Path("/proc/self/status"), Path("/proc/meminfo")
_GROUP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# How torch says that it got no memory, and how the loader of a library does.
_NO_MEMORY = ("can't allocate memory", "failed to map segment", "cannot allocate memory", "cannot map zero-fill pages")
_lock = threading.Lock()
_readers = 0  # files that are being read: the first one's ceiling holds until the last one is done
_before: tuple[int, int] | None = None


@contextmanager
def bounded_memory(name: str, most: int) -> Iterator[None]:
    """Let the process take at most so much more while a file is read. Without Linux's ``/proc`` nothing is bounded.

    The ceiling is the whole process's, and falls away afterwards. What meets it gets no memory, and fails. It is never
    more than the machine has left: where that runs out, the system ends a process of its own choice.

    Args:
        name: of the file, as shown.
        most: bytes beyond what the process has.

    Raises:
        MediaError: reading the file needed more.
    """
    free = available_memory()
    short = free is not None and free < most
    if free is not None:
        most = min(most, free)
    _lower(most)
    try:
        yield
    except (MemoryError, RuntimeError, ImportError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        raise MediaError(
            f"{name} needs more than {binary(most)} of memory to be read" + ", which is what is free" * short,
            "choose a shorter span or make a smaller copy of it, or "
            + ("free some memory" if short else "raise the setting limit_memory"),
        ) from error
    finally:
        _lift()


def require_memory(error: BaseException) -> None:
    """Check that an error of reading is not for want of memory, which is no damage of the file.

    Raises:
        MemoryError: it is: FFmpeg has a word of its own for it, and another one where its decoder gets no threads.
    """
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, BlockingIOError) and "avcodec_open2" in str(error):
        raise MemoryError(str(error)) from error


def available_memory() -> int | None:
    """Bytes that this machine can still give, or the container that this process runs in; None if nothing tells."""
    found = [stated_bytes(_MEMINFO, "MemAvailable")]
    with suppress(OSError, ValueError, KeyError, StopIteration):  # no groups of version 2, or not to be seen from here
        own = next(line[3:] for line in _GROUP.read_text().splitlines() if line.startswith("0::"))
        group = _GROUPS / own.strip("/")
        for folder in (group, *(above for above in group.parents if above.is_relative_to(_GROUPS))):
            if (folder / "memory.max").exists() and (most := (folder / "memory.max").read_text().strip()) != "max":
                counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                cached = int(counts["inactive_file"])  # which is given up for whoever asks
                found.append(max(0, int(most) - int((folder / "memory.current").read_text()) + cached))
    return min((size for size in found if size is not None), default=None)


def _lower(most: int) -> None:
    global _readers, _before
    with _lock:
        _readers += 1
        held = stated_bytes(_STATUS, "VmData") if _readers == 1 else None
        if held is None:
            return
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bounds = [bound for bound in (soft, hard, held + most) if bound != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
        _before = soft, hard


def _lift() -> None:
    global _readers, _before
    with _lock:
        _readers -= 1
        if _readers == 0 and _before is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, _before)
            _before = None
