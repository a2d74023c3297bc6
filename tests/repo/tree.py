"""What the tests of the repository look at: its files, its packages, its documents."""

import ast
import functools
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

_NOT_OURS = {".git", ".venv", "var", "dist", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}


def files() -> list[Path]:
    """Every file that is, or may be, in the repository; without what is ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return sorted(path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file())
    found = (path for path in ROOT.rglob("*") if path.is_file())  # an archive without its history
    return sorted(path for path in found if not _NOT_OURS & set(path.relative_to(ROOT).parts))


def name(path: Path) -> str:
    """The path from the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


def production() -> list[Path]:
    """Every Python file that is installed."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The file's syntax."""
    return ast.parse(path.read_text(encoding="utf-8"), name(path))


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def imports(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported, and every name that is imported from one, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def documents() -> list[Path]:
    """Every document."""
    return [path for path in files() if path.suffix == ".md"]


def makefile_targets() -> dict[str, str]:
    """The Makefile's targets, each with the line that `make help` prints of it."""
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][a-z0-9-]*):(?!=)(.*)$", text, re.MULTILINE)
    return {target: rest.partition("## ")[2].strip() for target, rest in targets}


def procfile() -> dict[str, str]:
    """The processes of the Procfile, by name."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {process.strip(): command.strip() for process, _, command in (line.partition(":") for line in lines if line)}
