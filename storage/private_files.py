"""Files and folders that hold data, readable by their owner alone."""

import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

PRIVATE_FILE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700

#: Bits of a mode that let anybody but the owner read.
OTHERS_MAY_READ: Final = 0o044


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for its owner alone.

    One that exists stays as it is. Raises OSError.
    """
    for missing in reversed([each for each in (path, *path.parents) if not each.exists()]):
        missing.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def written(path: Path) -> BinaryIO:
    """Open the file for binary writing, emptied and readable by its owner alone.

    Raises OSError.
    """
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE), "wb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # /dev/stdout and named pipes stay as they are
        os.fchmod(file.fileno(), PRIVATE_FILE)  # it may have existed, with another mode
    return file


def created(path: Path) -> BinaryIO:
    """Create the file for binary writing, readable by its owner alone.

    Raises FileExistsError where there is one, and other OSErrors.
    """
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE), "wb")


def make_file(path: Path) -> None:
    """Make an empty file for its owner alone where there is none. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))


def others_may_read(path: Path) -> bool:
    """Return True where others than the owner may read the file."""
    try:
        return bool(path.stat().st_mode & OTHERS_MAY_READ)
    except OSError:
        return False
