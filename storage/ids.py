"""Ids in time order, so that an index grows at its end."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import uuid_utils

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_ID: Final = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


def new_id() -> str:
    """A new UUIDv7 (RFC 9562) in its canonical text form; later ids sort after earlier ones of this process."""
    return str(uuid_utils.uuid7())


def first_id(at: datetime) -> str:
    """What is not greater than any id that is made at that instant or later, and greater than any made before."""
    ms = f"{int(at.timestamp() * 1000):012x}"
    return f"{ms[:8]}-{ms[8:]}-0000-0000-000000000000"


def is_id(text: str) -> bool:
    """Whether the text may be the id of a row. PostgreSQL raises for any other that it is asked about."""
    return _ID.fullmatch(text) is not None


def instant_of(an_id: str) -> datetime:
    """When the id was made, by the clock of whoever made it, to the millisecond. OverflowError beyond the year 9999."""
    return _EPOCH + timedelta(milliseconds=int(an_id.replace("-", "")[:12], 16))
