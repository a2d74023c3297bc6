"""Files that hold data are for their owner alone, whatever the umask is and whatever lay in their place."""

import os
import stat
from types import SimpleNamespace

import pytest

from receipted.cli.lists import write_body
from receipted.demo.plan import sandbox_config
from receipted.demo.run import Demonstration
from storage import migrate
from storage.database import Database
from storage.private_files import written
from tests.support.settings_file import write_settings

from .conftest import Shell


@pytest.fixture(autouse=True)
def open_handed():
    """The most that a umask can give away."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_database_its_log_of_writes_and_its_folders(tmp_path):
    file = tmp_path / "one" / "two" / "receipted.db"
    database = Database(f"sqlite:///{file}")
    try:
        migrate.upgrade(database)
        with database.write() as unit:
            unit.run("CREATE TABLE anything (id INTEGER)")
            beside = {path.name: mode(path) for path in file.parent.iterdir()}
    finally:
        database.close()

    assert beside == {f"receipted.db{suffix}": 0o600 for suffix in ("", "-wal", "-shm", "-turn", "-next")}
    assert (mode(file.parent), mode(file.parent.parent)) == (0o700, 0o700)


def test_a_database_that_another_command_makes_first(tmp_path):
    """Whoever connects first makes the file."""
    file = tmp_path / "receipted.db"
    database = Database(f"sqlite:///{file}")
    with database.engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    database.close()

    assert mode(file) == 0o600


def test_a_database_and_a_folder_that_are_there_stay_as_they_are(tmp_path):
    """A backup's group may have been let in on purpose; `config check` warns."""
    tmp_path.chmod(0o750)
    (tmp_path / "receipted.db").touch(0o640)
    migrate.upgrade(database := Database(f"sqlite:///{tmp_path / 'receipted.db'}"))
    database.close()

    assert (mode(tmp_path), mode(tmp_path / "receipted.db")) == (0o750, 0o640)


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "in the place of one that others may read"])
def test_exports_and_bodies(tmp_path, is_there):
    shell, export, body = Shell(write_settings(tmp_path)).migrated(), tmp_path / "export.ndjson", tmp_path / "body.bin"
    if is_there:
        export.touch(0o644)
        body.touch(0o644)
    shell("audit", "export", "--output", str(export))
    write_body(body, b"x")

    assert (mode(export), mode(body), body.read_bytes()) == (0o600, 0o600, b"x")


def test_what_is_no_file_is_written_to_as_it_is(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with written(pipe) as file:
        file.write(b"x")

    assert (os.read(reader, 10), mode(pipe)) == (b"x", 0o644)
    os.close(reader)


def test_what_the_demonstration_leaves(tmp_path):
    folder = tmp_path / "var" / "demo"
    outside = SimpleNamespace(sandbox_url="http://127.0.0.1:9", shop_url="http://127.0.0.1:9/shop")
    run = Demonstration(sandbox_config(1, 100), outside, folder)
    run.service.close()

    assert (mode(folder), mode(folder.parent)) == (0o700, 0o700)
    assert {path.name: oct(mode(path)) for path in folder.iterdir() if mode(path) != 0o600} == {}
    assert (folder / "receipted.toml").exists()
