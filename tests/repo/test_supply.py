"""What is installed is pinned by its hash, and the tree tells nothing of the machine that it was written on."""

import re

import pytest

from tests.repo.tree import ROOT, files, name

CONSTRAINTS = ROOT / "constraints.txt"
RUNTIME = ROOT / "constraints-runtime.txt"
LOCKS = (CONSTRAINTS, RUNTIME, ROOT / "constraints-build.txt")

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


def requirements(lock):
    """Each requirement of the lock with its marker, its lines joined."""
    text = re.sub(r"\s*\\\n\s*", " ", lock.read_text())
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("lock", LOCKS, ids=name)
def test_every_requirement_is_pinned_by_its_hash(lock):
    assert [
        line for line in requirements(lock) if not re.match(r"[\w.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)
    ] == []


def test_what_runs_and_what_builds_is_what_was_tested():
    """The same versions with the same hashes, and none that the developers' environment does not have."""
    tested, runtime, build = map(requirements, LOCKS)

    assert len(build) < 10 < len(runtime) < len(tested)
    assert set(runtime) <= set(tested)
    assert set(build) <= set(tested)


def test_what_runs_has_no_tool_of_the_developers():
    names = {line.partition("==")[0] for line in requirements(RUNTIME)}

    assert {"sqlalchemy", "uvicorn", "asyncpg", "psycopg"} <= names
    assert names & {"pytest", "mypy", "ruff", "hatchling", "playwright", "faststream", "stripe"} == set()


@pytest.mark.parametrize("lock", LOCKS, ids=name)
def test_the_lock_names_no_host(lock):
    assert "://" not in lock.read_text()
    assert not re.search(r"--(index-url|extra-index-url|find-links|trusted-host)", lock.read_text())


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
