"""Ids in time order, so that an index grows at its end."""

import uuid_utils


def new_id() -> str:
    """A new UUIDv7 (RFC 9562) in its canonical text form; later ids sort after earlier ones of this process."""
    return str(uuid_utils.uuid7())
