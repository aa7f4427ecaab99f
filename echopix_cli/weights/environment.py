"""What the environment says about the hub, checked before the hub's library reads it, which explains no mistake."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from echopix_cli.errors import UsageError

_SECONDS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_ENDPOINT, _CERTIFICATES = "HF_ENDPOINT", "SSL_CERT_FILE"


def hub_constants() -> Any:
    """The module of the hub's library with what it takes from the environment.

    Raises:
        UsageError: a variable that it reads at once states something impossible.
    """
    for name in _SECONDS:
        try:
            int(os.environ.get(name, "0"))
        except ValueError:
            raise _refused(name, "is no whole number of seconds", "10") from None
    try:
        _ = urlsplit(os.environ.get(_ENDPOINT, "")).port
    except ValueError:
        raise _no_address() from None
    from huggingface_hub import constants

    return constants


def require_connection() -> None:
    """Check what else a request needs: the hub's address, the token, and the certificates that opening one reads.

    Raises:
        UsageError: a variable that states one of them cannot be meant.
    """
    endpoint = urlsplit(os.environ.get(_ENDPOINT) or "https://huggingface.co")
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname:
        raise _no_address()
    for name in _TOKENS:
        if not os.environ.get(name, "").isascii():
            raise UsageError(f"{name} is no token: it holds other characters than ASCII", f"correct or unset {name}")
    if named := os.environ.get(_CERTIFICATES):
        import ssl  # here, because it takes long to import

        try:
            ssl.create_default_context(cafile=named)
        except OSError as error:  # an SSLError, too
            raise UsageError(
                f"{_CERTIFICATES}={named} holds no certificates that can be read: {error.strerror or error}",
                f"correct or unset {_CERTIFICATES}",
            ) from error


def _no_address() -> UsageError:
    return _refused(_ENDPOINT, "is no address of a server", "https://huggingface.co")


def _refused(name: str, why: str, example: str) -> UsageError:
    value = os.environ[name].rpartition("@")[2]  # without the password that may stand in an address
    return UsageError(f"{name}={value} {why}", f"unset {name}, or: {name}={example}")
