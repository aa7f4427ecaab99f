"""What a bare GPU machine lacks, in one file, where it has no package index: ``python tests/gpu/pack.py FILE.tar.xz``.

The machine is taken to hold torch, transformers and what they need. Wheels for its Python are fetched from the index
that pip knows, cut down to what is used (of bitsandbytes one CUDA library instead of a dozen), and compressed anew.
On arrival: ``mkdir site && tar xJf FILE.tar.xz -C site`` and ``PYTHONPATH=site``; or give the file to the campaign
as ``--site``.
"""

from __future__ import annotations

import argparse
import io
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGES = ("bitsandbytes", "av>=15,<19", "soundfile", "cffi", "typer==0.26.*", "rich", "platformdirs")
GLIBC = (39, 34, 31, 28, 27, 24, 17)  # pip matches a platform's name to the letter


def fetch(packages: Sequence[str], python: str, folder: Path) -> list[Path]:
    """Download wheels for 64-bit Linux and a version of Python, without what they depend on."""
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in GLIBC]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", f"-d{folder}"]
    command += [f"--python-version={python}", "--implementation=cp", "--platform=manylinux2014_x86_64", *platforms]
    for package in packages:
        subprocess.run([*command, package], check=True)
    return sorted(folder.glob("*.whl"))


def wanted(name: str, cuda: str) -> bool:
    """Whether a wheel's file is of use: no library of bitsandbytes for another device or version, no tests."""
    path = Path(name)
    if path.name.startswith("libbitsandbytes_"):
        return path.name in (f"libbitsandbytes_cuda{cuda}.so", "libbitsandbytes_cpu.so")
    return "tests" not in path.parts and path.suffix != ".pyi"


def members(wheel: Path, cuda: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what is kept of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith("/") and wanted(name, cuda):
                yield name, archive.read(name)


def pack(wheels: Sequence[Path], target: Path, cuda: str) -> int:
    """Write what is kept of wheels as one archive; returns its size in bytes."""
    with (
        lzma.open(target, "wb", preset=9 | lzma.PRESET_EXTREME) as raw,
        tarfile.open(fileobj=raw, mode="w|") as archive,
    ):
        for wheel in wheels:
            for name, content in members(wheel, cuda):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
    return target.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("--python", default="3.12", help="of the GPU machine")
    parser.add_argument("--cuda", default="130", help="version of its CUDA, as bitsandbytes writes it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = pack(fetch(PACKAGES, given.python, Path(folder)), given.target, given.cuda)
    print(f"{given.target}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
