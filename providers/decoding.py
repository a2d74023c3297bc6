"""Decoding of untrusted bytes: exact numbers, bounded text, storable texts."""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import astuple, replace

from statemachine.errors import InvalidAmount
from statemachine.money import MAX_MINOR, to_minor
from statemachine.names import MAX_NAME_CHARS, is_kept, is_name
from statemachine.observation import Observation
from statemachine.sums import UNSAID

#: A provider that asks for a longer silence than a day is misread.
_MAX_WAIT: Final = 86_400.0

#: A currency whose minor unit is its major one: an amount in it is a count.
UNDIVIDED: Final = "JPY"

#: More digits than any amount has, and fewer than the decimal context would round away.
_MAX_DIGITS: Final = 24


#: Both kinds that JSON's numbers become. A union of types would be made anew for each value.
_NUMBERS: Final = (int, Decimal)
_AMOUNTS: Final = (int, Decimal, str)


class Unreadable(ValueError):
    """The bytes cannot be parsed; the reason holds nothing of the bytes themselves."""


_decoder: Final = msgspec.json.Decoder(float_hook=Decimal)


def json_value(body: bytes) -> object:
    """Parse JSON with every fraction as an exact Decimal; raise Unreadable only.

    A byte order mark before it is passed over, as RFC 8259 permits.
    """
    try:
        return _decoder.decode(body.removeprefix(BOM_UTF8))
    except RecursionError:
        raise Unreadable("the body is nested too deeply") from None
    except (ValueError, ArithmeticError):  # msgspec's errors and a broken UTF-8 sequence are ValueErrors
        raise Unreadable("the body is not JSON") from None


def json_object(body: bytes) -> Mapping[str, object]:
    """Parse a JSON object; raise Unreadable, and nothing else, for any other bytes."""
    value = json_value(body)
    if not isinstance(value, dict):
        raise Unreadable("the body is no JSON object")
    return value


def form_fields(body: bytes) -> dict[str, object]:
    """Parse a form (application/x-www-form-urlencoded); raises Unreadable."""
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, strict_parsing=True, max_num_fields=_MAX_FORM_FIELDS
        )
    except (ValueError, UnicodeDecodeError):
        raise Unreadable("the body is no form") from None
    return dict(pairs)


def form_field(body: bytes, field: str) -> str | None:
    """Return a form's field that is there once, else None; total."""
    try:
        told = body.decode("utf-8")
        pairs = parse_qsl(told, keep_blank_values=True, max_num_fields=_MAX_FORM_FIELDS)
    except (ValueError, UnicodeDecodeError):
        return None
    found = [value for label, value in pairs if label == field]
    return found[0] if len(found) == 1 else None


def name(value: object) -> str | None:
    """Return the value if it may name a payment (id, reference, alias), else None.

    The rule is that of the references that merchants may give, so that whatever is sent can be read back.
    """
    return value if isinstance(value, str) and is_name(value) else None


def name_asked(value: object, asked: str | None) -> str | None:
    """Return the name in an answer, or `asked` where the echo cannot be compared.

    None where there is no echo, or one of another type that does not spell the name.
    """
    told = name(value)
    if asked is None or told is not None:
        return told
    is_spelt = isinstance(value, int) and not isinstance(value, bool) and fact(value) == asked
    return asked if isinstance(value, str) or is_spelt else None


def word(value: object) -> str | None:
    """Return the value if it is printable text for a status or code, else None."""
    if isinstance(value, str) and 0 < len(value) <= MAX_WORD and value.isprintable():
        return value
    return None


def fact(value: object) -> str | None:
    """Return a string, number or boolean as bounded printable text, else None."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _NUMBERS):
        value = str(value) if not isinstance(value, int) or value.bit_length() < 1024 else ""
    if isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable():
        return value
    return None


def instant(value: object) -> datetime | None:
    """Parse an ISO 8601 text with a zone into an aware UTC instant, else None."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        parsed = datetime.fromisoformat(value)
        if parsed.tzinfo is UTC:
            return parsed
        return parsed.astimezone(UTC) if parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def exact_minor(value: object, currency: str) -> int:
    """Convert a decimal amount of major units to whole minor units.

    The amount is text or a JSON number. Raises InvalidAmount.

    See to_minor() for what is none: a provider's text is read no more kindly than anybody's.
    """
    if isinstance(value, Decimal) and not value.is_finite():
        raise InvalidAmount("amount is out of range", param="amount")
    if isinstance(value, _AMOUNTS):
        return _exact_minor(value, currency)
    raise InvalidAmount("amount must be a decimal number", param="amount")


@lru_cache(maxsize=10_000, typed=True)
def _exact_minor(value: int | Decimal | str, currency: str) -> int:
    if isinstance(value, str):
        return to_minor(value, currency)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise InvalidAmount("amount must be a decimal number", param="amount")
    if isinstance(value, Decimal) and (not value.is_finite() or not _is_sane(value)):
        raise InvalidAmount("amount is out of range", param="amount")
    if isinstance(value, int) and value.bit_length() > 64:
        raise InvalidAmount("amount is out of range", param="amount")
    return to_minor(value, currency)


def whole_minor(value: object) -> int:
    """Convert a JSON number of minor units to int; raise InvalidAmount."""
    if isinstance(value, str):
        raise InvalidAmount("amount is no whole number of minor units", param="amount")
    return exact_minor(value, UNDIVIDED)


def _is_sane(value: Decimal) -> bool:
    parts = value.as_tuple()
    return len(parts.digits) <= _MAX_DIGITS and isinstance(parts.exponent, int) and abs(parts.exponent) <= _MAX_DIGITS


#: Names under which bodies say whether their money is real, and what their values mean.
_IS_LIVE: Final[dict[object, bool]] = {True: True, False: False, "true": True, "false": False}
_IS_TEST: Final = {value: not is_live for value, is_live in _IS_LIVE.items()}
_MODE_WORDS: Final[dict[object, bool]] = {"live": True, "production": True, "test": False, "sandbox": False}
_MODES: Final[dict[str, dict[object, bool]]] = {
    **dict.fromkeys(("live", "livemode", "live_mode", "is_live"), _IS_LIVE),
    **dict.fromkeys(("test", "testmode", "test_mode", "is_test", "sandbox"), _IS_TEST),
    **dict.fromkeys(("mode", "environment"), _MODE_WORDS),
}


def says_live(*objects: Mapping[str, object]) -> bool | None:
    """Return whether these objects say that the money is real; None if none says so.

    Raises Unreadable where they contradict each other.
    """
    found: set[bool] = set()
    for each in objects:
        for name in _MODES.keys() & each.keys():
            value, words = each[name], _MODES[name]
            if isinstance(value, (bool, str)) and value in words:
                found.add(words[value])
    if len(found) > 1:
        raise Unreadable("it says live and test at once")
    return found.pop() if found else None


def words_under(value: object, is_wanted: Callable[[str, str], bool], limit: int = 20) -> tuple[str, ...]:
    """Return the wanted distinct names at any depth of a JSON value, at most `limit`.

    `is_wanted` gets the key that each stands under.

    Texts in a list stand under the list's own key. Visits at most 10,000 values, without recursion.
    """
    found: dict[str, None] = {}
    for key, item in _walk(value, 10_000):
        text = name(item)
        if text is not None and is_wanted(key, text):
            found[text] = None
            if len(found) == limit:
                break
    return tuple(found)


def _walk(value: object, budget: int) -> Iterator[tuple[str, object]]:
    queue: list[tuple[str, object]] = [("", value)]
    for visited, (key, item) in enumerate(queue):  # the list grows while it is read: breadth first
        if visited == budget:
            return
        yield key, item
        if isinstance(item, dict):
            queue.extend(item.items())
        elif isinstance(item, list):
            queue.extend((key, each) for each in item)


def own_words(text: object) -> str:
    """Reduce a provider's error message to one printable line of 200 characters."""
    if not isinstance(text, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in text[:400]).strip()[:200]


def retry_after(headers: Mapping[str, str], sent_at: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks to wait (RFC 9110 10.2.3).

    None where the header is absent or makes no sense: back off instead.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) <= 6:
        return sane_wait(float(text))
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # which of them depends on the version of Python
        return None
    return sane_wait((until.replace(tzinfo=until.tzinfo or UTC) - sent_at).total_seconds())


def sane_wait(seconds: float) -> float | None:
    """Return the seconds to wait; 0 for the past, None for more than a day."""
    return None if seconds > _MAX_WAIT else max(0.0, seconds)


#: A longer id, status or reference is no provider's.
MAX_WORD: Final = MAX_NAME_CHARS

#: A longer text is not worth keeping beside the bytes that it came from.
MAX_TEXT: Final = 2000

#: Years in which something may happen at a provider; at the ends of time nothing can be added to an instant.
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 2999

_CURRENCY: Final = re.compile("[A-Za-z]{3}")
_CURRENCY_CHARS: Final = 3
_MAX_FORM_FIELDS: Final = 1000
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
    moments = ("as_of", "expires_at", "capture_by")
    changes |= {name: None for name in moments if not _is_moment(getattr(seen, name))}
    if not all(_is_moment(part.as_of) for part in seen.parts):
        changes["parts"] = tuple(part if _is_moment(part.as_of) else replace(part, as_of=None) for part in seen.parts)
    for name in ("failure_reason", "note"):
        told = getattr(seen, name)
        if told is not None and (kept := words(told)) != told:
            changes[name] = kept
    if any(not _is_kept(name, value) for name, value in seen.facts.items()):
        changes["facts"] = _facts(seen.facts)
    return replace(seen, **changes) if changes else seen


def _is_plain(seen: Observation) -> bool:
    """Return whether all texts are short ASCII, so that all can be stored."""
    if seen.sums is not UNSAID or seen.parts or seen.capture_by is not None:
        return False
    if seen.amount_minor is not None and abs(seen.amount_minor) > MAX_MINOR:
        return False
    if seen.currency is not None and not (len(seen.currency) == _CURRENCY_CHARS and seen.currency.isalpha()):
        return False
    if not _is_moment(seen.as_of) or not _is_moment(seen.expires_at) or len(seen.kind or "") > _MAX_KIND:
        return False
    names = seen.provider_ref, seen.reference, seen.alias
    for told in names:
        if told is not None and not is_name(told):
            return False
    words = "".join(filter(None, (*names, seen.kind, seen.currency, seen.status)))
    more = "".join(filter(None, (seen.actor, seen.failure_reason, seen.note, *seen.facts)))
    texts = "".join(filter(None, seen.facts.values()))
    if len(more) > MAX_WORD or len(seen.status or "") > MAX_WORD or len(texts) > MAX_TEXT:
        return False
    said = words + more + texts
    return said.isascii() and "\0" not in said


def _unkeepable(seen: Observation) -> str:
    if not _is_kept_or_unsaid(seen.kind, _MAX_KIND):
        return "the kind is no word that can be kept"
    if not _is_name_or_unsaid(seen.provider_ref):
        return "the id is no name of a payment"
    if not _is_kept_or_unsaid(seen.status):
        return "the status is no word that can be kept"
    if seen.currency is not None and _CURRENCY.fullmatch(seen.currency) is None:
        return "the currency is no code of three letters"
    for amount in (seen.amount_minor, *astuple(seen.sums), *(part.amount_minor for part in seen.parts)):
        if amount is not None and abs(amount) > MAX_MINOR:
            return "an amount is out of range"
    if any(part.amount_minor is not None and part.amount_minor < 0 for part in seen.parts):
        return "a capture, refund or dispute is of less than nothing"
    if not all(is_name(part.name) for part in seen.parts):
        return "a capture, refund or dispute has an id that is no name"
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
