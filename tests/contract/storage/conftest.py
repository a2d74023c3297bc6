"""One fixture for every kind of database under the storage contract; a second kind is a second parameter."""

import pytest

from tests.fakes.databases import copy_of


@pytest.fixture(params=["sqlite"])
def database(request, template, tmp_path):
    """An empty migrated database of the kind."""
    assert request.param == "sqlite"
    opened = copy_of(template, tmp_path / "contract.db")
    yield opened
    opened.close()


@pytest.fixture
def again(database):
    """A second connection pool to the same database, as another process would have."""
    other = type(database)(database.url)
    yield other
    other.close()
