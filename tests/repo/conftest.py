"""What tests of the repository share for the length of one module."""

from collections.abc import Iterator

import pytest

from tests.repo import tree


@pytest.fixture(scope="module", autouse=True)
def syntax_read_once() -> Iterator[None]:
    """Forget the syntax trees with the module: kept, they would slow down the garbage collector of all that follow."""
    yield
    tree.parsed.cache_clear()
