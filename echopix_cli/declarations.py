"""How named values are declared: once each, as fields of a frozen dataclass.

The settings of the program and the recipe of a training run are two such dataclasses. The command line, its help and
completions, variables, files and the manual are made from what they declare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from echopix_cli.errors import UsageError
from echopix_cli.parsers import one_of, parse_switch

ENVIRONMENT_PREFIX = "ECHOPIX_"
_LARGEST = 2**53  # of whole numbers, which then have an exact value as any number


@dataclass(frozen=True)
class Setting:
    """How one named value is read, what it means, and how it is shown.

    Attributes:
        name: in files; its environment variable and its flag follow from it.
        default: its value where nothing sets it, or a function that returns it.
        parse: text to value; ValueError with what was expected.
        help: in plain words, without choices and default.
        flags: spellings on the command line, where ``--name`` is not the one.
        metavar: stands for its value in help; of a closed list it holds all of it, as ``auto|none``.
        panel: the heading that it stands below in help.
        repeats: whether it is a list: in TOML an array, in text between commas.
        write: value to what a file would say, where that is not the value itself.
    """

    name: str
    default: Any
    parse: Callable[[str], Any]
    help: str
    flags: tuple[str, ...] = ()
    metavar: str = ""
    panel: str = ""
    repeats: bool = False
    write: Callable[[Any], Any] | None = None

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Its spelling on the command line, or the first of several."""
        return self.flags[0].partition("/")[0] if self.flags else f"--{self.name.replace('_', '-')}"

    @property
    def switch(self) -> bool:
        """Whether it is on or off."""
        return self.parse is parse_switch

    def written(self, value: Any) -> Any:
        """A value as a file would say it: a text, number, switch, or tuple of these; None stays None."""
        return value if value is None or self.write is None else self.write(value)

    def read(self, raw: Any, where: str) -> Any:
        """A value from text or TOML.

        Raises:
            UsageError: it does not fit; ``where`` it stands is said.
        """
        try:
            if self.repeats:
                parts = raw if isinstance(raw, list) else _text(raw).split(",")
                return tuple(self.parse(_text(part).strip()) for part in parts)
            if isinstance(raw, bool) != self.switch and not isinstance(raw, str):
                raise ValueError("expected true or false" if self.switch else "true or false means nothing here")
            value = self.parse(_text(raw))
            if isinstance(value, int) and abs(value) > _LARGEST:
                raise ValueError("that is too large a number")
            return value
        except (ValueError, OverflowError) as error:
            raise UsageError(f"{where}: {raw!r} does not fit: {error}", f"{self.name}: {self.help}") from None


def _text(raw: Any) -> str:
    """A value of TOML, as a command line would say it.

    Raises:
        ValueError: it is a list, table or date.
    """
    if not isinstance(raw, str | int | float):
        raise ValueError("expected a text or a number")
    return str(raw)


def setting(default: Any, parse: Callable[[str], Any] | tuple[str, ...], help: str, *flags: str, **shown: Any) -> Any:
    """Declare a field of a frozen dataclass as a setting.

    Args:
        default: its value, or a function that finds it.
        parse: of text, or the words that are allowed.
        help, flags, shown: as of :class:`Setting`.
    """
    if isinstance(parse, tuple):
        shown = {"metavar": "|".join(parse), **shown}
        parse = one_of(parse)
    more = {"parse": parse, "help": help, "flags": flags, **shown}
    return field(default_factory=default, metadata=more) if callable(default) else field(default=default, metadata=more)


def table_of(kind: type[Any]) -> dict[str, Setting]:
    """The settings that a dataclass declares, by name."""
    return {
        own.name: Setting(
            own.name, own.default if own.default_factory is MISSING else own.default_factory, **own.metadata
        )
        for own in fields(kind)
    }


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file, with or without a byte-order mark; nothing when there is none.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        import tomllib

        return tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # text that is not UTF-8 or not TOML is a ValueError
        raise UsageError(f"cannot read {path}: {error}", "mend or remove the file") from None


def require_known(values: Mapping[str, Any], table: Mapping[str, Setting], where: str, what: str = "setting") -> None:
    """Refuse names that are not in a table.

    Raises:
        UsageError: there is one; the nearest is said.
    """
    if unknown := sorted(set(values) - set(table)):
        near = get_close_matches(unknown[0], table, 1)
        hint = near[0] if near else f"{what}s are: {', '.join(table)}"
        raise UsageError(f"{where} sets {', '.join(map(repr, unknown))}, which is no {what}", hint)
