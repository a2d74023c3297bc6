"""Database errors in words that hold no value of any row."""

import sqlite3
from typing import Final, TypeVar

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from storage.errors import LeaseLost

Fault = TypeVar("Fault", bound=DBAPIError)


def without_values(fault: Fault) -> Fault:
    """Copy the error with the same kind and statement, but without values."""
    orig = type(fault.orig)(words(fault)) if fault.orig is not None else None
    clean = type(fault)(fault.statement, None, orig, hide_parameters=True)  # type: ignore[arg-type]
    return clean.with_traceback(fault.__traceback__)


#: Why nothing can be written, by PostgreSQL's SQLSTATE and SQLite's code; SQLITE_IOERR_WRITE and SQLITE_IOERR_SHMSIZE
#: are a file that may not grow. Nothing else counts: a write that is slow, or meets a lock, says nothing of the next.
_REFUSALS: Final = {
    "25006": "storage_read_only",
    "53100": "storage_full",
    sqlite3.SQLITE_READONLY: "storage_read_only",
    sqlite3.SQLITE_FULL: "storage_full",
    sqlite3.SQLITE_IOERR_WRITE: "storage_full",
    sqlite3.SQLITE_IOERR_SHMSIZE: "storage_full",
}


def refusal_of(orig: BaseException | None) -> str | None:
    """Return why the database takes no writes at all, where the exception says so."""
    state = getattr(orig, "sqlstate", None)
    if state is not None:
        return _REFUSALS.get(state)
    code = getattr(orig, "sqlite_errorcode", None)
    return None if code is None else _REFUSALS.get(code) or _REFUSALS.get(code & 0xFF)


def words(fault: DBAPIError) -> str:
    """Return the first line of the error, without details that quote rows.

    Of a quoted value, no more than its kind.
    """
    if isinstance(fault, DataError):
        return type(fault.orig).__name__
    told = getattr(getattr(fault.orig, "diag", None), "message_primary", None) or str(fault.orig)
    return str(told).partition("\n")[0]


def is_rivalry(fault: Exception) -> bool:
    """Return whether another worker was first, so that a repeat will succeed."""
    return isinstance(fault, LeaseLost | IntegrityError)
