"""What is wrong with a command line, in plain words: what is there instead, and what is allowed."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import typer

from echopix_cli.cli.parameters import parameter, parameters_of
from echopix_cli.errors import UsageError

WRONG_USE: type[Exception] = typer.BadParameter.__mro__[1]  # what typer raises about command lines, whatever they lack
_HELP_ASKED = "NoArgsIsHelpError"  # what it raises where a group is called without a command; its message is the help


def shown_help(error: Any) -> str | None:
    """The help that a group without a command asks for; None where something else is wrong."""
    return error.format_message() if type(error).__name__ == _HELP_ASKED else None


@contextmanager
def told_of(context: Any) -> Iterator[None]:
    """Whatever is found wrong meanwhile is of this command: its parser does not always say so."""
    try:
        yield
    except WRONG_USE as error:
        vars(error)["ctx"] = vars(error).get("ctx") or context
        raise


def explained(error: Any) -> UsageError:
    """One of typer's errors about a command line, as ours."""
    context, kind, message = error.ctx, type(error).__name__, error.format_message()
    command = "echopix" if context is None else context.command_path
    more = f"{command} --help"
    options = [] if context is None else [p for p in parameters_of(context.command) if p.names]
    if kind == "NoSuchOption":
        key = error.option_name.lstrip("-").replace("-", "_")
        from echopix_cli.training.recipe import RECIPE

        if command == "echopix train" and key in RECIPE:
            return UsageError(f"{command} has no option {error.option_name}", f"--set {key}=VALUE: {RECIPE[key].help}")
        names = [name for option in options for name in option.names]
        near = get_close_matches(error.option_name, names, 1)
        hint = next((option.spoken for option in options if near and near[0] in option.names), more)
        return UsageError(f"{command} has no option {error.option_name}", hint)
    if kind == "BadOptionUsage":
        own = next((option for option in options if error.option_name in option.names), None)
        several = re.search(r"requires (\d+) arguments", message)
        needs = f"needs {several[1]} values" if several else "needs a value"
        fault = "takes no value" if "does not take a value" in message else needs
        return UsageError(f"{error.option_name} {fault}", more if own is None else own.spoken)
    if (raw := getattr(error, "param", None)) is not None:
        own = parameter(raw)
        name = own.names[0] if own.names else own.value
        if kind == "MissingParameter":
            return UsageError(f"{name} is missing", f"{more} shows how {command} is called")
        return UsageError(f"{name}: {_wanted(raw, message)}", own.spoken)
    if found := re.match(r"No such command '(.*?)'\.", message):
        return _no_command(found[1], command, context, more)
    if found := re.match(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", message):
        return UsageError(f"{command} takes no argument {found[1]}", more)
    if message.startswith("Missing command"):
        return UsageError(f"{command} needs a command", more)
    return UsageError(message[:1].lower() + message[1:].rstrip("."), more)


def _no_command(name: str, command: str, context: Any, more: str) -> UsageError:
    near = get_close_matches(name, list(context.command.commands), 1)
    if command == "echopix" and not near and os.path.lexists(name):
        return UsageError(f"{name} is a file, not a command", f"echopix ask {shlex.quote(name)} QUESTION")
    return UsageError(f"{command} has no command {name!r}", f"{command} {near[0]}" if near else more)


def _wanted(raw: Any, message: str) -> str:
    """What fits, said of a value that does not; ``message`` is the library's word for it."""
    older = getattr(raw, "type", None)  # where an older typer keeps all of this
    low, high = (getattr(older if hasattr(older, end) else raw, end, None) for end in ("min", "max"))
    annotation = getattr(getattr(raw, "type_descriptor", None), "annotation", None)
    whole = annotation is int or "integer" in getattr(older, "name", "")
    kind = "a whole number" if whole else "a number"
    about_numbers = any(word in message for word in ("integer", "float", "number", "range", "greater", "less"))
    if not about_numbers:
        return message.rpartition(": ")[2].rstrip(".") or message
    if low is not None and high is not None:
        return f"expected {kind} from {low} to {high}"
    if low is not None:
        return f"expected {kind} of at least {low}"
    if high is not None:
        return f"expected {kind} of at most {high}"
    return f"expected {kind}"
