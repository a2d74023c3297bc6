"""Duties that one process at a time does, whoever comes first."""

from hashlib import sha256

from sqlalchemy import func, select

from storage.engine import Unit


def is_leader(unit: Unit, duty: str) -> bool:
    """Whether this unit of work, until it ends, is the only one that does the duty; whoever asks meanwhile is told no.

    The lock is the transaction's, so that it is kept by a pooler of transactions too, and nobody has to give it back.
    On SQLite there is one unit of work that writes, and that is it.
    """
    if unit.dialect != "postgresql":
        return True
    return bool(unit.execute(select(func.pg_try_advisory_xact_lock(_key(duty)))).scalar_one())


def _key(duty: str) -> int:
    return int.from_bytes(sha256(f"receipted {duty}".encode()).digest()[:8], signed=True)
