"""Write the shell completions and the command reference from the command tree itself.

``python completions/generate.py`` rewrites the files beside it; ``--check`` only says which are out of date
and exits 1. The completions are static: pressing Tab starts no Python.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from echopix_cli.cli.app import app
from echopix_cli.scenes import FAMILIES, SPLITS
from echopix_cli.settings import SIEVES

HERE = Path(__file__).parent
WORDS = {
    "--device": ("auto", "cpu", "cuda"),
    "--dtype": ("auto", "float32", "bfloat16", "float16"),
    "--family": FAMILIES,
    "--sieve": SIEVES,
    "--sieve-view": ("whole", "causal", "no-question"),
    "--split": SPLITS,
    "--stage": ("full", "sieve"),
    "--teacher": ("none", "attention"),
}
_SHELL_OWN = {"--install-completion", "--show-completion"}


@dataclass(frozen=True)
class Option:
    """One option of a command: its spellings, one line of help, and whether a value follows."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    metavar: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """Values to offer; none means file names."""
        named = tuple(self.metavar.split("|")) if "|" in self.metavar and self.metavar.islower() else ()
        return next((WORDS[name] for name in self.names if name in WORDS), named)


@dataclass(frozen=True)
class Command:
    """A subcommand (``"models pull"`` for one of a group), or the program itself under the name ``""``."""

    name: str
    help: str
    options: tuple[Option, ...]
    arguments: tuple[str, ...] = ()
    description: str = ""


def command_tree() -> tuple[Command, ...]:
    """The program, its subcommands, and those of its groups."""
    root: Any = typer.main.get_command(app)
    found = [("", root)]
    for name, part in sorted(root.commands.items()):
        found.append((name, part))
        found += [(f"{name} {inner}", below) for inner, below in sorted(getattr(part, "commands", {}).items())]
    return tuple(
        Command(name, _first_line(part.help), tuple(_options(part)), tuple(_arguments(part)), (part.help or "").strip())
        for name, part in found
    )


def _top(commands: tuple[Command, ...]) -> list[Command]:
    return [command for command in commands if command.name and " " not in command.name]


def _below(commands: tuple[Command, ...], group: Command) -> list[Command]:
    """A group's commands; none for what is no group."""
    return [command for command in commands if command.name.startswith(f"{group.name} ")] if group.name else []


def _last(command: Command) -> str:
    return command.name.rpartition(" ")[2]


def _arguments(part: Any) -> Iterator[str]:
    for parameter in part.params:
        if not any(name.startswith("-") for name in parameter.opts):
            name = parameter.metavar or parameter.name
            yield f"[{name}]..." if parameter.nargs == -1 else name


def _options(part: Any) -> Iterator[Option]:
    for parameter in part.params:
        # A switch's other way round comes last: it takes back what a config file has set.
        names = tuple(name for name in (*sorted(parameter.opts), *parameter.secondary_opts) if name.startswith("-"))
        if names and not _SHELL_OWN & set(names):
            yield Option(
                names,
                " ".join((parameter.help or "").split()),
                not parameter.is_flag,
                parameter.metavar or "",
            )
    yield Option(("--help", "-h"), "Show this message and exit.", False)


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0] if text else ""


def bash(commands: tuple[Command, ...]) -> str:
    """Subcommands, then options of the one typed; file names everywhere else."""
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
        '    case "$previous" in',
        *(f'        {name}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")); '
          'compopt -o default; return;;' for name, words in WORDS.items()),
        "    esac",
        '    case "$command" in',
    ]  # fmt: skip
    for command in commands:
        names = " ".join(name for option in command.options for name in option.names)
        inner = " ".join(map(_last, _below(commands, command)))
        lines.append(f'        "{command.name}") words="{names}"' + (f'; commands="{inner}";;' if inner else ";;"))
    top = " ".join(command.name for command in _top(commands))
    lines += [
        "    esac",
        '    if [[ "$current" == -* ]]; then COMPREPLY=($(compgen -W "$words" -- "$current")); return; fi',
        f'    if [[ -z "$command" ]]; then commands="{top}"; fi',
        '    if [[ -n "$commands" ]]; then COMPREPLY=($(compgen -W "$commands" -- "$current")); return; fi',
        "    compopt -o default; COMPREPLY=()",
        "}",
        "complete -F _echopix echopix",
    ]
    return "\n".join(lines) + "\n"


def zsh(commands: tuple[Command, ...]) -> str:
    """An autoloadable function over ``_arguments``."""

    def escape(text: str) -> str:
        return text.replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")

    def arguments(command: Command) -> Iterator[str]:
        for option in command.options:
            value = f":value:({' '.join(option.words)})" if option.words else ":value:_files"
            names = f"{{{','.join(option.names)}}}" if len(option.names) > 1 else option.names[0]
            yield f"{names}'[{escape(option.help)}]{value if option.takes_value else ''}'"

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
            found = " ".join(arguments(command))
            lines.append(f"    {command.name}) shift words; (( CURRENT-- )); _arguments {found} '*:media:_files';;")
            continue
        lines += [f"    {command.name})", "      if (( CURRENT == 3 )); then", "        commands=("]
        lines += [f"          '{_last(c)}:{escape(c.help)}'" for c in inner]
        lines += ["        )", "        _describe command commands", "        return", "      fi"]
        lines.append("      case $words[3] in")
        for c in inner:
            found = " ".join(arguments(c))
            lines.append(f"        {_last(c)}) shift 2 words; (( CURRENT -= 2 )); _arguments {found} '*:name:_files';;")
        lines += ["      esac;;"]
    lines += ["  esac", "}", '_echopix "$@"']
    return "\n".join(lines) + "\n"


def fish(commands: tuple[Command, ...]) -> str:
    """One ``complete`` line for each command and option."""

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
        for option in command.options:
            spelled = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
            value = f" -x -a {quote(' '.join(option.words))}" if option.words else " -r" if option.takes_value else ""
            lines.append(f"complete -c echopix -n {when} {spelled}{value} -d {quote(option.help)}")
    return "\n".join(lines) + "\n"


def reference(commands: tuple[Command, ...]) -> str:
    """Every command with its arguments and options, as Markdown."""
    parts = ["# Command reference\n\nWritten by `completions/generate.py` from the program itself.\n"]
    for command in commands:
        usage = " ".join(
            [
                "echopix",
                *([command.name] if command.name else []),
                *(["COMMAND"] if not command.name or _below(commands, command) else []),
                "[OPTIONS]",
                *command.arguments,
            ]
        )
        parts.append(f"## {usage}\n\n{command.description}\n")
        parts.append("| option | meaning |\n| --- | --- |")
        for option in command.options:
            spelled = ", ".join(f"`{name}`" for name in option.names)
            value = f" *{option.metavar}*".replace("|", "\\|") if option.takes_value else ""
            parts.append(f"| {spelled}{value} | {option.help} |")
        parts.append("")
    return "\n".join(parts)


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is out of date")
    check = parser.parse_args().check
    commands = command_tree()
    files = {
        "echopix.bash": bash(commands),
        "_echopix": zsh(commands),
        "echopix.fish": fish(commands),
        "COMMANDS.md": reference(commands),
    }
    stale = [name for name, text in files.items() if not (HERE / name).exists() or (HERE / name).read_text() != text]
    for name in stale:
        if check:
            print(f"completions/{name} is out of date: run python completions/generate.py")
        else:
            (HERE / name).write_text(files[name])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
