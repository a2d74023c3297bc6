"""Reads the documents' commands the way the command line itself would."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from receipted.cli.main import app

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_ROOT: Any = typer.main.get_command(app)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for found, text in _FENCE.findall(path.read_text(encoding="utf-8")) if found == language]


def inline(path: Path) -> Iterator[str]:
    """Every piece of code within a line."""
    yield from _INLINE.findall(_FENCE.sub("", path.read_text(encoding="utf-8")))


def shell_lines(path: Path) -> Iterator[str]:
    """Every command that a reader is to type."""
    for text in blocks(path, "shell"):
        yield from (line.strip() for line in text.splitlines() if line.strip())


def problem(line: str, *, is_whole: bool) -> str:
    """What is wrong with a `receipted ...` line; empty where nothing is. A whole one has all that is required."""
    command, given, places = _ROOT, set(), 0
    words = iter(shlex.split(line)[1:])
    for word in words:
        if word.startswith("--"):
            option = next((p for p in command.params if word in (*p.opts, *p.secondary_opts)), None)
            if option is None and word != "--help":
                return f"{command.name} has no {word}"
            if option is not None and not option.is_flag:
                next(words, None)
            given.add(option.name if option is not None else "help")
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return f"{command.name} has no {word}"
            command, given, places = command.commands[word], set(), 0
        else:
            places += 1
    if not is_whole or "help" in given:
        return ""
    if hasattr(command, "commands"):
        return f"{command.name} is a group"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    if places < sum(p.required for p in arguments):
        return f"{command.name} needs more arguments"
    if places > len(arguments) and not any(p.nargs == -1 for p in arguments):
        return f"{command.name} takes fewer arguments"
    missing = [
        p.opts[0] for p in command.params if p.param_type_name == "option" and p.required and p.name not in given
    ]
    return f"{command.name} needs {', '.join(missing)}" if missing else ""
