"""A server that many tests share, and folders of sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Running, serving


@pytest.fixture(scope="session")
def server(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One with the random model, for the tests that leave it running."""
    runtime = tmp_path_factory.mktemp("runtime")
    runtime.chmod(0o700)
    with serving(runtime, str(random_checkpoint)) as running:
        yield running


@pytest.fixture
def near(server: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """The server, for clients of this process."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.runtime))
    monkeypatch.setenv("ECHOPIX_DEVICE", "cpu")
    return server


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the sockets of servers that a test begins and ends."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path
