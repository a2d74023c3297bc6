"""What is installed is pinned by its hash, and the tree tells nothing of the machine that it was written on."""

import re

from tests.repo.tree import ROOT, files, name

CONSTRAINTS = ROOT / "constraints.txt"

#: Written in parts, so that this file is not what it looks for.
_FOREIGN = re.compile(
    "|".join(
        (
            r"py" + r"pi\.org|python" + r"hosted\.org",
            r"(?<![\w.])/" + r"(root|home|Users|work|tmp)/\w",
            "BEGIN [A-Z ]*PRIVATE" + " KEY",
        )
    )
)


def requirements():
    """Each requirement of constraints.txt, its lines joined."""
    text = re.sub(r"\s*\\\n\s*", " ", CONSTRAINTS.read_text())
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


def test_every_requirement_is_pinned_by_its_hash():
    assert len(requirements()) > 20
    assert [
        line for line in requirements() if not re.match(r"[\w.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)
    ] == []


def test_the_lock_names_no_host():
    assert "://" not in CONSTRAINTS.read_text()
    assert not re.search(r"--(index-url|extra-index-url|find-links|trusted-host)", CONSTRAINTS.read_text())


def test_nothing_tells_of_a_machine_or_a_registry():
    found = {}
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a vector of bytes that are no text
        hits = sorted({match[0] for match in _FOREIGN.finditer(text)})
        if hits:
            found[name(path)] = hits

    assert found == {}
