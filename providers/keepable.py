"""Texts of providers made storable: names whole or dropped, words cut.

PostgreSQL keeps no NUL, UTF-8 has no bytes for half of a surrogate pair, columns have lengths and BIGINT has an end,
and SQLite lets all of that pass. The exact bytes are in the inbox whatever is done here.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final

from msgspec.structs import replace

from statemachine.money import MAX_MINOR
from statemachine.names import MAX_NAME_CHARS, is_kept, is_name
from statemachine.observation import Observation

#: A longer id, status or reference is no provider's.
MAX_WORD: Final = MAX_NAME_CHARS

#: A longer text is not worth keeping beside the bytes that it came from.
MAX_TEXT: Final = 2000

#: Years in which something may happen at a provider; at the ends of time nothing can be added to an instant.
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 2999

_CURRENCY: Final = re.compile("[A-Za-z]{3}")
_MAX_KIND: Final = 32  #: as wide as the column
_CUT: Final = "…"
_UNKEEPABLE: Final = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"


def words(text: str, longest: int = MAX_TEXT) -> str:
    """Return storable text: `�` replaces what cannot be stored, `…` marks a cut."""
    if len(text) > longest:
        text = text[: longest - len(_CUT)] + _CUT
    return _UNKEEPABLE.sub(_REPLACEMENT, text)


def key(text: str) -> str:
    """Return the delivery key if it can be stored, else a digest of it.

    Equal keys stay equal and different ones different.
    """
    if text and is_kept(text, MAX_WORD):
        return text
    return "key-sha256:" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def observation(seen: Observation) -> Observation | str:
    """Return a storable observation, or why there is none.

    A name, a state or an amount that cannot be stored as stated makes it unstorable.

    A reference or an alias that is no name (statemachine/names.py) is left out: it names no payment of ours. So is an
    instant at which nothing happens: it orders nothing, and no question is planned by it.
    """
    if _is_plain(seen):
        return seen
    if why := _unkeepable(seen):
        return why
    changes: dict[str, object] = {
        name: None for name in ("reference", "alias") if not _is_name_or_unsaid(getattr(seen, name))
    }
    if not _is_kept_or_unsaid(seen.actor):
        changes["actor"] = None
    changes |= {name: None for name in ("as_of", "expires_at") if not _is_moment(getattr(seen, name))}
    for name in ("failure_reason", "note"):
        told = getattr(seen, name)
        if told is not None and (kept := words(told)) != told:
            changes[name] = kept
    if any(not _is_kept(name, value) for name, value in seen.facts.items()):
        changes["facts"] = _facts(seen.facts)
    return replace(seen, **changes) if changes else seen


def _is_plain(seen: Observation) -> bool:
    """Return whether all texts are short ASCII, so that all can be stored."""
    if seen.amount_minor is not None and abs(seen.amount_minor) > MAX_MINOR:
        return False
    if seen.captured_minor is not None or seen.refunded_minor is not None:
        return False
    if len(seen.kind or "") > _MAX_KIND:
        return False
    if seen.currency is not None and _CURRENCY.fullmatch(seen.currency) is None:
        return False
    if not _is_moment(seen.as_of) or not _is_moment(seen.expires_at):
        return False
    words = (
        f"{seen.kind}{seen.currency}{seen.provider_ref}{seen.status}{seen.reference}{seen.alias}{seen.actor}"
        f"{seen.failure_reason}{seen.note}"
    )
    names, texts = "".join(seen.facts), "".join(filter(None, seen.facts.values()))
    if len(words) > MAX_WORD or len(names) > MAX_WORD or len(texts) > MAX_TEXT:
        return False
    said = words + names + texts
    is_plain = said.isascii() and "\0" not in said
    return is_plain and all(map(_is_name_or_unsaid, (seen.provider_ref, seen.reference, seen.alias)))


def _unkeepable(seen: Observation) -> str:
    if not _is_kept_or_unsaid(seen.kind, _MAX_KIND):
        return "the kind is no word that can be kept"
    if not _is_name_or_unsaid(seen.provider_ref):
        return "the id is no name of a payment"
    if not _is_kept_or_unsaid(seen.status):
        return "the status is no word that can be kept"
    if seen.currency is not None and _CURRENCY.fullmatch(seen.currency) is None:
        return "the currency is no code of three letters"
    for amount in (seen.amount_minor, seen.captured_minor, seen.refunded_minor):
        if amount is not None and abs(amount) > MAX_MINOR:
            return "an amount is out of range"
    return ""


def _is_moment(told: datetime | None) -> bool:
    return told is None or _FIRST_YEAR <= told.year <= _LAST_YEAR


def _is_name_or_unsaid(text: str | None) -> bool:
    return text is None or is_name(text)


def _is_kept_or_unsaid(text: str | None, max_chars: int = MAX_WORD) -> bool:
    return text is None or is_kept(text, max_chars)


def _is_kept(name: str, value: str | None) -> bool:
    return is_kept(name, MAX_WORD) and _is_kept_or_unsaid(value, MAX_TEXT)


def _facts(facts: Mapping[str, str | None]) -> dict[str, str | None]:
    return {words(name, MAX_WORD): value if value is None else words(value) for name, value in facts.items()}
