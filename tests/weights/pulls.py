"""Pulls from the hub on loopback, and what is told on the way."""

from __future__ import annotations

from echopix_cli.weights import hub
from echopix_cli.weights.registry import find_model
from echopix_cli.weights.transfer import Plan, Progress, RemoteFile

BIG, SECOND, TALKER = (f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))
NAME = "hf:someone/omni"


class Heard(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.notices: list[str] = []
        self.starts: dict[str, list[int]] = {}

    def planned(self, plan: Plan) -> None:
        self.plan = plan

    def fetching(self, file: RemoteFile, at: int) -> None:
        self.starts.setdefault(file.path, []).append(at)

    def notice(self, text: str) -> None:
        self.notices.append(text)


def pulled(heard: Heard | None = None, name: str = NAME) -> hub.Pulled:
    return hub.pull(find_model(name), heard or Heard())
