"""Write the shell completions, the manual page and the command reference from the command tree itself, and the tables
of settings and recipe keys that end two pages of the manual from what declares them.

``python completions/generate.py`` rewrites these files; ``--check`` only says which are out of date and exits 1. The
completions are static: pressing Tab starts no Python.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from echopix_cli.cli.app import EPILOG, command_line
from echopix_cli.cli.help import examples_of, groups_of, summary_of, usage_of
from echopix_cli.cli.manual import topics
from echopix_cli.cli.parameters import OTHER, Parameter, allowed_in, parameters_of
from echopix_cli.declarations import Setting
from echopix_cli.scenes import SPLITS, WIDE_FAMILIES
from echopix_cli.settings import SIEVES, TABLE
from echopix_cli.training.recipe import RECIPE, toml
from echopix_cli.weights.registry import AUTO, BUNDLED, REGISTERED

HERE = Path(__file__).parent
MANUAL = HERE.parent / "echopix_cli" / "manual"
NAMES = (BUNDLED, *(model.name for model in REGISTERED))
# Values that stand in no metavar, because they are many, or are read elsewhere when the program runs.
WORDS = {
    "--family": WIDE_FAMILIES,
    "--sieve": SIEVES,
    "--split": SPLITS,
    "--model": (AUTO, *NAMES),
    "--base": NAMES,
}


@dataclass(frozen=True)
class Command:
    """A subcommand (``"models pull"`` for one of a group), or the program itself under the name ``""``."""

    name: str
    part: Any

    @property
    def path(self) -> str:
        """With the program's name."""
        return f"echopix {self.name}".strip()

    @property
    def help(self) -> str:
        """What it does, in a line."""
        return summary_of(self.part)

    @property
    def options(self) -> list[Parameter]:
        """Its options."""
        return [own for own in parameters_of(self.part) if own.names]

    @property
    def words(self) -> tuple[str, ...]:
        """What its arguments may be, where that can be listed; files otherwise."""
        values = {own.value for own in parameters_of(self.part) if not own.names}
        if self.name == "help":
            return (*(command.name for command in _top(command_tree())), *topics())
        return NAMES if values == {"NAME"} and self.name.startswith("models ") else ()


def words_of(option: Parameter) -> tuple[str, ...]:
    """Values to offer for an option; none means file names."""
    return next((WORDS[name] for name in option.names if name in WORDS), option.choices)


def command_tree() -> tuple[Command, ...]:
    """The program, its subcommands, and those of its groups."""
    root: Any = typer.main.get_command(command_line())
    found = [("", root)]
    for name, part in sorted(root.commands.items()):
        found.append((name, part))
        found += [(f"{name} {inner}", below) for inner, below in sorted(getattr(part, "commands", {}).items())]
    return tuple(Command(*each) for each in found)


def _top(commands: Iterable[Command]) -> list[Command]:
    return [command for command in commands if command.name and " " not in command.name]


def _below(commands: Iterable[Command], group: Command) -> list[Command]:
    """A group's commands; none for what is no group."""
    return [command for command in commands if command.name.startswith(f"{group.name} ")] if group.name else []


def _last(command: Command) -> str:
    return command.name.rpartition(" ")[2]


def bash(commands: tuple[Command, ...]) -> str:
    """Subcommands, then options of the one typed and their values; file names everywhere else."""
    lines = [
        "# bash completion for echopix; written by completions/generate.py",
        "_echopix() {",
        '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"',
        '    local word command="" words="" commands=""',
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '        [[ "$word" == -* ]] && continue',
        '        case "$command" in',
        f'            "") case "$word" in {"|".join(c.name for c in _top(commands))}) command="$word";; esac;;',
        *(f'            {c.name}) case "$word" in {"|".join(map(_last, _below(commands, c)))}) '
          'command="$command $word"; break;; esac;;' for c in _top(commands) if _below(commands, c)),
        "            *) break;;",
        "        esac",
        "    done",
        '    case "$command:$previous" in',
    ]  # fmt: skip
    for words, patterns in _bash_values(commands).items():
        offer = f'COMPREPLY=($(compgen -W "{words}" -- "$current")); compopt -o default; return'
        lines.append(f"        {'|'.join(patterns)}) {offer};;")
    lines += ["    esac", '    case "$command" in']
    for command in commands:
        names = " ".join(name for option in command.options for name in option.names)
        inner = " ".join([*map(_last, _below(commands, command)), *command.words])
        lines.append(f'        "{command.name}") words="{names}"' + (f'; commands="{inner}";;' if inner else ";;"))
    top = " ".join(command.name for command in _top(commands))
    lines += [
        "    esac",
        '    if [[ "$current" == -* ]]; then COMPREPLY=($(compgen -W "$words" -- "$current")); return; fi',
        f'    if [[ -z "$command" ]]; then commands="{top}"; fi',
        "    compopt -o default",
        '    COMPREPLY=($(compgen -W "$commands" -- "$current"))',
        "}",
        "complete -F _echopix echopix",
    ]
    return "\n".join(lines) + "\n"


def _bash_values(commands: tuple[Command, ...]) -> dict[str, list[str]]:
    """Lists of values, and the ``command:option`` that each stands behind. Readline splits words at colons."""
    found: dict[str, list[str]] = {}
    for command in commands:
        for option in command.options:
            if words := " ".join(word for word in words_of(option) if ":" not in word):
                patterns = [f'"{command.name}:{name}"' for name in option.names]
                found.setdefault(words, []).extend(patterns)
    return found


def zsh(commands: tuple[Command, ...]) -> str:
    """An autoloadable function over ``_arguments``."""

    def escape(text: str) -> str:
        return text.replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")

    def offered(words: tuple[str, ...]) -> str:
        return f"({' '.join(word.replace(':', chr(92) + ':') for word in words)})"

    def arguments(command: Command) -> Iterator[str]:
        for option in command.options:
            words = words_of(option)
            value = f":value:{offered(words)}" if words else ":value:_files"
            if "DIR" in option.value.split("|"):
                value = f':value:{{_alternative "names:name:{offered(words)}" "files:folder:_files -/"}}'
            names = f"{{{','.join(option.names)}}}" if len(option.names) > 1 else option.names[0]
            repeated = "*" if option.repeats else ""
            yield f"{repeated}{names}'[{escape(option.help)}]{value if option.value else ''}'"

    def call(command: Command) -> str:
        rest = f":name:{offered(command.words)}" if command.words else ":media:_files"
        return f"_arguments {' '.join(arguments(command))} '*{rest}'"

    lines = [
        "#compdef echopix",
        "# written by completions/generate.py",
        "_echopix() {",
        "  local -a commands",
        "  commands=(",
    ]
    lines += [f"    '{c.name}:{escape(c.help)}'" for c in _top(commands)]
    lines += ["  )", "  if (( CURRENT == 2 )); then", "    _describe command commands"]
    lines += [f"    _arguments {' '.join(arguments(commands[0]))}", "    return", "  fi", "  case $words[2] in"]
    for command in _top(commands):
        inner = _below(commands, command)
        if not inner:
            lines.append(f"    {command.name}) shift words; (( CURRENT-- )); {call(command)};;")
            continue
        lines += [f"    {command.name})", "      if (( CURRENT == 3 )); then", "        commands=("]
        lines += [f"          '{_last(c)}:{escape(c.help)}'" for c in inner]
        lines += ["        )", "        _describe command commands", "        return", "      fi"]
        lines.append("      case $words[3] in")
        lines += [f"        {_last(c)}) shift 2 words; (( CURRENT -= 2 )); {call(c)};;" for c in inner]
        lines += ["      esac;;"]
    lines += ["  esac", "}", '_echopix "$@"']
    return "\n".join(lines) + "\n"


def fish(commands: tuple[Command, ...]) -> str:
    """One ``complete`` line for each command, option and list of arguments."""

    def quote(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = ["# fish completion for echopix; written by completions/generate.py"]
    for command in _top(commands):
        lines.append(f"complete -c echopix -n __fish_use_subcommand -f -a {command.name} -d {quote(command.help)}")
        inner = _below(commands, command)
        unsaid = f"__fish_seen_subcommand_from {command.name}; and not __fish_seen_subcommand_from "
        unsaid += " ".join(map(_last, inner))
        for c in inner:
            lines.append(f"complete -c echopix -n {quote(unsaid)} -f -a {_last(c)} -d {quote(c.help)}")
    for command in commands:
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.name.split())
        when = quote(seen) if command.name else "__fish_use_subcommand"
        if command.words:
            lines.append(f"complete -c echopix -n {when} -f -a {quote(' '.join(command.words))}")
        for option in command.options:
            spelled = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
            words = words_of(option)
            files = " -r" if "DIR" in option.value.split("|") else " -x"
            value = f"{files} -a {quote(' '.join(words))}" if words else " -r" if option.value else ""
            lines.append(f"complete -c echopix -n {when} {spelled}{value} -d {quote(option.help)}")
    return "\n".join(lines) + "\n"


def reference(commands: tuple[Command, ...]) -> str:
    """Every command with its arguments and options, as Markdown."""
    parts = ["# Command reference\n\nWritten by `completions/generate.py` from the program itself.\n"]
    for command in commands:
        parts.append(f"## {usage_of(command.part, command.path)}\n\n{inspect.cleandoc(command.part.help or '')}\n")
        examples = examples_of(command.path)
        if examples:
            shown = "\n".join(f"# {what}\n{line}" for line, what in examples)
            parts.append(f"```sh\n{shown}\n```\n")
        for title, members in groups_of(command.part).items():
            parts.append(f"| {title} | |\n| --- | --- |")
            for own in members:
                label, text = own.label.replace("|", "\\|"), own.text.replace("|", "\\|")
                parts.append(f"| `{label}` | {text} |")
            parts.append("")
    return "\n".join(parts)


def manual(commands: tuple[Command, ...]) -> str:
    """The manual page, as ``man`` reads it."""

    def plain(text: str) -> str:
        """Text that troff takes for nothing else."""
        escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
        return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in escaped.split("\n"))

    root = commands[0]
    lines = [
        '.\\" Written by completions/generate.py.',
        '.TH ECHOPIX 1 "" "echopix" "User Commands"',
        ".SH NAME",
        f"echopix \\- {plain(root.help[:1].lower() + root.help[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        plain(usage_of(root.part, "echopix")),
    ]
    for command in commands:
        lines.append(f".SH {command.name.upper()}" if command.name else ".SH DESCRIPTION")
        if command.name:
            lines += [".B " + plain(usage_of(command.part, command.path)), ".PP"]
        for paragraph in inspect.cleandoc(command.part.help or "").split("\n\n"):
            lines += [plain(" ".join(paragraph.split())), ".PP"]
        for title, members in groups_of(command.part).items():
            lines.append(f".SS {title}")
            for own in members:
                lines += [".TP", ".B " + plain(own.label), plain(own.text)]
        if examples := examples_of(command.path):
            lines.append(".SS Examples")
            for line, what in examples:
                lines += [".TP", ".B " + plain(line), plain(what)]
    lines += [".SH EXIT STATUS", plain(EPILOG)]
    return "\n".join(lines) + "\n"


def with_table(page: Path, heading: str, table: dict[str, Setting]) -> str:
    """A page of the manual, whose last part, below ``heading``, lists what a table declares."""
    start, found, _ = page.read_text().partition(f"\n## {heading}\n")
    assert found, f"{page} has no part {heading!r}"
    parts = [start + found]
    for panel in dict.fromkeys(own.panel for own in table.values()):
        parts.append(f"| {panel or OTHER} | |\n| --- | --- |")
        for own in (own for own in table.values() if own.panel == panel):
            help = " ".join(part for part in (own.help, allowed_in(own.metavar)) if part)
            parts.append(f"| `{_assigned(own)}` | {help.replace('|', chr(92) + '|')} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _assigned(own: Setting) -> str:
    """A line of TOML with the default, or the name alone where there is none to write down."""
    if own.default in (None, "") or callable(own.default):
        return own.name
    return f"{own.name} = {toml(own.written(own.default))}"


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is out of date")
    check = parser.parse_args().check
    commands = command_tree()
    files = {
        HERE / "echopix.bash": bash(commands),
        HERE / "_echopix": zsh(commands),
        HERE / "echopix.fish": fish(commands),
        HERE / "echopix.1": manual(commands),
        HERE / "COMMANDS.md": reference(commands),
        MANUAL / "settings.md": with_table(MANUAL / "settings.md", "Every setting", TABLE),
        MANUAL / "training.md": with_table(MANUAL / "training.md", "Every key of a recipe", RECIPE),
    }
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(HERE.parent)} is out of date: run python completions/generate.py")
        else:
            path.write_text(files[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
