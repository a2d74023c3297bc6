"""Advisory locks on awaited payment names, and on duties of one process at a time."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from hashlib import sha256
from typing import Final

from sqlalchemy import func, select

from storage.database import Unit

#: In one order for everybody, so that nobody waits in a circle.
_HOLD: Final = (
    "SELECT pg_advisory_xact_lock(name) FROM "
    "(SELECT DISTINCT hashtextextended(told, 0) AS name FROM unnest(%s::text[]) AS told ORDER BY name) AS names"
)
_BUSY: Final = (
    "SELECT told FROM unnest(%s::text[]) AS told WHERE NOT pg_try_advisory_xact_lock(hashtextextended(told, 0))"
)
_KNOWN: Final = (
    "SELECT account, provider_ref FROM payment "
    "JOIN unnest(%s::text[], %s::text[]) AS told (account, provider_ref) USING (account, provider_ref)"
)


def busy(unit: Unit, refs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Lock the payments' names until the unit of work ends; return those already held.

    Waits for no lock. On SQLite there is no other writer.

    Waits for nobody. On SQLite nobody else writes.
    """
    names = {f"{account}:{ref}": (account, ref) for account, ref in refs}
    if not names or unit.dialect != "postgresql":
        return set()
    return {names[row[0]] for row in unit.rows(_BUSY, (list(names),))}


def hold(unit: Unit, awaited: Iterable[tuple[str, str]], held: AbstractSet[tuple[str, str]] = frozenset()) -> None:
    """Lock these payment names until the unit of work ends, waiting for other holders.

    Otherwise a message could be parked while its payment is bound, neither worker seeing the other's. On SQLite nobody
    else writes. `held` are refs, by account, that are ours already.
    """
    if unit.dialect != "postgresql":
        return
    wanted = {(account, _ref(name)) for account, name in awaited} - held
    if wanted:
        unit.rows(_HOLD, ([f"{account}:{ref}" for account, ref in wanted],))


def known_meanwhile(unit: Unit, parked: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the names, held by `hold`, that a payment has by now."""
    if not parked or unit.dialect != "postgresql":
        return []
    pairs = [account for account, _ in parked], [_ref(name) for _, name in parked]
    known = set(unit.rows(_KNOWN, pairs))
    return [(account, name) for account, name in parked if (account, _ref(name)) in known]


def _ref(name: str) -> str:
    return name.partition(":")[2]  # a message may have guessed the kind wrongly


def is_leader(unit: Unit, duty: str) -> bool:
    """Try to lock a duty until the unit of work ends; return whether it was free.

    The lock is the transaction's, so that it is kept by a pooler of transactions too, and nobody has to give it back.
    On SQLite there is one unit of work that writes, and that is it.
    """
    if unit.dialect != "postgresql":
        return True
    return bool(unit.execute(select(func.pg_try_advisory_xact_lock(_key(duty)))).scalar_one())


def _key(duty: str) -> int:
    return int.from_bytes(sha256(f"receipted {duty}".encode()).digest()[:8], signed=True)
