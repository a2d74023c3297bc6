"""Real SQLite files, migrated once and copied for each test."""

import shutil
from pathlib import Path

from storage import migrate
from storage.engine import Database


def migrated_file(folder: Path) -> Path:
    """A migrated database file that nobody has open."""
    path = folder / "template.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    database.close()
    assert not path.with_suffix(".db-wal").exists(), "the template is not complete without its log"
    return path


def copy_of(template: Path, path: Path) -> Database:
    """A database of its own in a new file."""
    shutil.copyfile(template, path)
    return Database(f"sqlite:///{path}")
