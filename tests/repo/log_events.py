"""The names of the log events, read from the code."""

import ast
import re
from functools import cache

from tests.repo.tree import name, parsed, production

_NAME = re.compile(r"[a-z]+\.[a-z_]+")
_LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
_SEVERITY = ("debug", "info", "warning", "error")


@cache
def events() -> dict[str, str]:
    """Each event of the service with its level, or levels, the least first; the sandbox logs for itself."""
    found: dict[str, set[str]] = {}
    for path in production():
        if name(path).startswith("sandbox/"):
            continue
        tree = parsed(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_log(node.func):
                for event in _names(node.args[0], tree):
                    found.setdefault(event, set()).add(_LEVELS[node.func.attr])
    return {event: " or ".join(sorted(levels, key=_SEVERITY.index)) for event, levels in found.items()}


def _is_log(function: ast.Attribute) -> bool:
    return function.attr in _LEVELS and isinstance(function.value, ast.Name) and function.value.id in ("log", "_log")


def _names(argument: ast.expr, tree: ast.Module) -> set[str]:
    """The constants that the argument may be; of a variable, those that are assigned to it anywhere in the file."""
    values: list[ast.AST] = [argument]
    if isinstance(argument, ast.Name):
        values = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == argument.id for target in node.targets)
        ]
    constants = (node.value for value in values for node in ast.walk(value) if isinstance(node, ast.Constant))
    return {text for text in constants if isinstance(text, str) and _NAME.fullmatch(text)}
