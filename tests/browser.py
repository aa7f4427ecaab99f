"""A headless Chromium, driven through pipes, for tests of pages."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

REQUIRED = os.environ.get("ECHOPIX_REQUIRE_BROWSER") == "1"  # read before a fixture takes it away
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--mute-audio",
    "--no-first-run",
    "--remote-debugging-pipe",
    "--autoplay-policy=no-user-gesture-required",
)


def chromium() -> str | None:
    """The program, where there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def without(reason: str) -> NoReturn:
    """Leave out a test that needs a browser; with ``ECHOPIX_REQUIRE_BROWSER=1``, fail it."""
    if REQUIRED:
        pytest.fail(f"ECHOPIX_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


class Browser:
    """One page of one browser. What it did is in ``events``.

    Args:
        program: from :func:`chromium`.
        profile: an empty folder.

    Raises:
        BrokenPipeError: it ends at once.
    """

    def __init__(self, program: str, profile: Path) -> None:
        read_end, self._to = os.pipe()
        self._from, write_end = os.pipe()
        flags = [*FLAGS, f"--user-data-dir={profile}"]
        script = f'exec "$@" 3<&{read_end} 4>&{write_end}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *flags, "about:blank"],
            pass_fds=(read_end, write_end),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        self._buffer, self._number, self.events = b"", 0, list[dict[str, Any]]()
        self._session: str | None = None
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60.0)
            assert answer is not None, f"no answer to {method}"
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _next(self, timeout: float) -> dict[str, Any] | None:
        """The next message; None where there is none for so long."""
        end = time.monotonic() + timeout
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            block = os.read(self._from, 1 << 16)
            if not block:
                raise BrokenPipeError("the browser has ended")
            self._buffer += block
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "id" not in message:
            self.events.append(message)
        return message

    def open(self, url: str, width: int, scheme: str = "light") -> None:
        """Load a page at a width, and wait until it and its media are there."""
        self.events.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=url)
        end = time.monotonic() + 60
        settled = (
            "document.readyState === 'complete' && [...document.querySelectorAll('video, audio')]"
            ".every(each => each.readyState > 0 || each.error)"
        )
        while not (self.evaluate("location.href") == url and self.evaluate(settled)):
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.1)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, of a promise once it is there."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        taken = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions."""
        said = []
        for event in self.events:
            parameters = event["params"]
            if event["method"] == "Log.entryAdded":
                said.append(str(parameters["entry"]["text"]))
            elif event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                said.append(json.dumps(parameters))
        return said

    @property
    def requests(self) -> list[str]:
        """URLs of all that was asked for."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [str(event["params"]["request"]["url"]) for event in sent]
