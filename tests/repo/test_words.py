"""Names and first sentences are those that a newcomer would guess."""

import ast
import re
from collections import defaultdict

import pytest

from tests.repo.tree import ROOT, name, parsed, production

#: A first line of this length stands whole in every editor, index and tooltip.
MAX_SUMMARY_CHARS = 80

#: First words that tell what a sentence is about, and not what the thing does.
_RIDDLES = re.compile(r"(What|Whether|How|Who|Where|Why|Whatever|Whoever|Nobody|Somebody|None)\b")

#: Constants that praise a quantity without saying it: PATIENCE, MANY, LONGEST.
_QUALITIES = re.compile(
    r"(?:\w+_)?(?:PATIENCE|MANY|MOST|FEW|FEWEST|LEAST|LONG|LONGEST|SHORT|SHORTEST|SOON|SELDOM|AWAY|QUIET|SMALL|LITTLE"
    r"|HUGE|LATE|SLOW|CROWD)"
)

#: The sandbox shares nothing with what it tests, so it has names of its own.
_APART = "sandbox"

_GLOSSARY = frozenset(re.findall(r"[a-z0-9]+", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").lower()))

_FILES = [pytest.param(path, id=name(path)) for path in production()]


@pytest.mark.parametrize("path", _FILES)
def test_first_lines_of_docstrings_are_short(path):
    tree = parsed(path)
    documented = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    first = {getattr(node, "lineno", 1): (ast.get_docstring(node) or "").split("\n")[0] for node in (tree, *documented)}

    assert [line for line, text in first.items() if len(text) > MAX_SUMMARY_CHARS or _RIDDLES.match(text)] == []


@pytest.mark.parametrize("path", _FILES)
def test_constants_say_their_quantity(path):
    targets = [
        target
        for node in parsed(path).body
        for target in ([node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", []))
    ]

    assert [
        node.id for node in targets if isinstance(node, ast.Name) and _QUALITIES.fullmatch(node.id.lstrip("_"))
    ] == []


def test_no_public_class_name_stands_twice():
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in production():
        if path.relative_to(ROOT).parts[0] != _APART:
            for node in parsed(path).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(name(path))

    assert {each: files for each, files in places.items() if len(files) > 1} == {}


def test_file_names_are_words_of_the_glossary():
    words = {
        (word, name(path))
        for path in production()
        if "migrations" not in path.parts and path.name != "__init__.py" and path.relative_to(ROOT).parts[0] != _APART
        for word in path.stem.split("_")
    }

    assert sorted((word, file) for word, file in words if not {word, word.removesuffix("s")} & _GLOSSARY) == []


@pytest.mark.parametrize("constant", ["_PATIENCE", "_MOST", "_NAMES_AWAY", "LONGEST"])
def test_a_constant_of_quality_is_found(constant):
    assert _QUALITIES.fullmatch(constant.lstrip("_"))
