"""A hub on loopback with one stock repository, and a cache of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from weights.hub_server import HubServer, Repository, point_to, stock_repository


@pytest.fixture(scope="session")
def repository() -> Repository:
    return stock_repository()


@pytest.fixture
def server(repository: Repository) -> Iterator[HubServer]:
    with HubServer() as running:
        running.repositories["someone/omni"] = repository
        yield running


@pytest.fixture
def cache(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    point_to(server, tmp_path, monkeypatch)
    return tmp_path / "hub"
