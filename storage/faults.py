"""What a database says of a fault, without anything of a row: it quotes the values that it refuses, and whole rows."""

from typing import TypeVar

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from storage.errors import LeaseLost

Fault = TypeVar("Fault", bound=DBAPIError)


def without_values(fault: Fault) -> Fault:
    """The same kind of fault, of the same statement, in words that may be logged and kept."""
    orig = type(fault.orig)(words(fault)) if fault.orig is not None else None
    clean = type(fault)(fault.statement, None, orig, hide_parameters=True)  # type: ignore[arg-type]
    return clean.with_traceback(fault.__traceback__)


def words(fault: DBAPIError) -> str:
    """The first line of what was said: details, which quote rows, come after it. Of a value, no more than its kind."""
    if isinstance(fault, DataError):
        return type(fault.orig).__name__
    told = getattr(getattr(fault.orig, "diag", None), "message_primary", None) or str(fault.orig)
    return str(told).partition("\n")[0]


def is_rivalry(fault: Exception) -> bool:
    """Whether another worker was quicker, so that the same once more will see what it did."""
    return isinstance(fault, LeaseLost | IntegrityError)
