"""The errors a user may meet, and the exit code each of them ends with."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit codes; documented on the manual's page on settings and stable across versions."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    MODEL = 3
    MEDIA = 4
    DEVICE = 5
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


class EchopixError(Exception):
    """A failure with one clear line for the user and the next thing to type.

    Args:
        message: what failed and why, one line, no trailing full stop needed.
        hint: what to type or change next; empty when there is nothing useful to say.
    """

    exit_code: ExitCode = ExitCode.FAILURE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    @property
    def kind(self) -> str:
        """What records call it: the name of its class, where that is not one of the media's for use in here."""
        return type(self).__name__


class UsageError(EchopixError):
    """The command line, the environment or the config file asks for something impossible."""

    exit_code = ExitCode.USAGE


class ModelError(EchopixError):
    """The model cannot be found, read or trusted."""

    exit_code = ExitCode.MODEL


class MediaError(EchopixError):
    """The media file cannot be opened or holds nothing that can be decoded."""

    exit_code = ExitCode.MEDIA

    @property
    def kind(self) -> str:
        """The same for all that can be wrong with a file."""
        return MediaError.__name__


class PastEnd(MediaError):
    """A span begins where the media have ended.

    Args:
        message, hint: as of every error.
        end: in seconds from the start of the media.
    """

    def __init__(self, message: str, hint: str = "", end: float = 0.0) -> None:
        super().__init__(message, hint)
        self.end = end


class Hollow(MediaError):
    """The media go on, but a span of them has nothing that can be used."""


class Nothing(Hollow):
    """Nothing is shown or played in a span."""


class FileLost(MediaError):
    """No part of a file can be read any more: it is gone, or another one, or reading it comes no further."""


class DeviceError(EchopixError):
    """The device is missing, or its memory does not suffice."""

    exit_code = ExitCode.DEVICE


class Interrupted(EchopixError):
    """Ended early by Ctrl-C or SIGTERM, with what was done kept.

    Args:
        message: how far it came.
        signal: the number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = ExitCode(128 + signal)


def described(error: BaseException) -> str:
    """An error that nobody foresaw, on one line: its type, and what it says if it says anything."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def told(error: Exception, hint: str = "run again with --debug and report what it prints") -> EchopixError:
    """An error as a user is told of it: one of ours as it is, any other in words.

    Args:
        error: what was raised.
        hint: what to do about one that nobody foresaw.
    """
    if isinstance(error, EchopixError):
        return error
    unforeseen = EchopixError(f"unexpected failure: {described(error)}", hint)
    unforeseen.__cause__ = error
    return unforeseen


def bare(error: EchopixError) -> EchopixError:
    """An error without the frames that it came through: they hold on to what the failed item took."""
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error
