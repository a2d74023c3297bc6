"""axe-core, which finds what people with a reader of screens, weak eyes or a keyboard would stumble over."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Final

from playwright.sync_api import Page

from tests.repo.tree import ROOT

#: Why a test that needs it is skipped.
WHY_NOT: Final = "axe-core could not be installed: npm is not here, or its registry cannot be reached"

_FOLDER: Final = ROOT / "var" / "axe"
_GRAVE: Final = ("serious", "critical")


def source() -> str | None:
    """The program to be run in a page, installed by npm where it is not yet; None where that cannot be done."""
    program = _FOLDER / "node_modules" / "axe-core" / "axe.min.js"
    npm = shutil.which("npm")
    if not program.exists() and (npm is None or not _installed(npm)):
        return None
    return program.read_text()


def _installed(npm: str) -> bool:
    partly = _FOLDER.with_name(f"axe-{os.getpid()}")
    partly.mkdir(parents=True, exist_ok=True)
    try:
        line = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(partly), "axe-core@4"]
        done = subprocess.run(line, capture_output=True, timeout=120, check=False)
        if done.returncode == 0 and not _FOLDER.exists():  # another process of tests may have been first
            partly.rename(_FOLDER)
        return _FOLDER.exists()
    finally:
        shutil.rmtree(partly, ignore_errors=True)


def violations(page: Page, program: str) -> Iterator[str]:
    """What is serious or critical on the page, each with where it is."""
    page.evaluate(program)
    found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run({resultTypes: ['violations']})).violations")
    for violation in found:
        if violation["impact"] in _GRAVE:
            for node in violation["nodes"]:
                yield f"{page.url}: {violation['id']} ({violation['help']}) at {node['target']}"
