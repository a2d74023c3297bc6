"""Where tests are a list of guarantees, each says its own in one sentence."""

import ast

import pytest

from tests.repo.tree import ROOT, name, parsed

FOLDERS = ("contract", "property", "chaos", "e2e")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / "tests" / folder).rglob("test_*.py"))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_each_test_states_its_guarantee(path):
    silent = [
        node.name
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and (not (told := ast.get_docstring(node)) or len(told.splitlines()) > 2)
    ]

    assert silent == []
