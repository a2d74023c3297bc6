"""Redaction of log lines by names of fields and headers, and by patterns of text."""

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import date, time
from enum import Enum
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, quote_plus
from uuid import UUID

_NAME_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

#: A name with one of these words in it.
_SECRET_WORDS: Final = frozenset(
    {
        *("authorization", "authorisation", "bearer", "body", "cookie", "cookies", "credential", "credentials", "cvc"),
        *("cvv", "iban", "ibans", "pan", "passphrase", "passwd", "password", "passwords", "payload", "pin", "pwd"),
        *("raw", "secret", "secrets", "signature", "signatures", "token", "tokens"),
    }
)

#: A name with one of these in it, once its words are joined by nothing.
_SECRET_JOINED: Final = (
    *("accesskey", "accountnumber", "apikey", "cardnumber", "privatekey", "routingnumber", "secretkey", "signingkey"),
    *("sortcode", "webhookkey"),
)

#: Last words of names that are about a secret and do not hold it: body_bytes, secret_name, token_age_seconds.
_METADATA_ENDINGS: Final = frozenset(
    {
        *("age", "at", "bytes", "count", "digest", "encoding", "hash", "id", "ids", "kind", "length", "limit"),
        *("name", "names", "path", "problem", "reason", "seconds", "size", "status", "type", "url"),
    }
)

_DIGEST_WORDS: Final = frozenset({"digest", "digests", "hash", "hashes"})


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Return whether values under this name are always masked."""
    parts = _parts(name)
    joined = "".join(parts)
    if any(word in joined for word in _SECRET_JOINED):
        return parts[-1] not in _METADATA_ENDINGS
    return not _SECRET_WORDS.isdisjoint(parts) and parts[-1] not in _METADATA_ENDINGS


@lru_cache(maxsize=4096)
def holds_digest(name: str) -> bool:
    """Return whether hexadecimal values of this name are digests, and not secret."""
    # a delivery key may be the digest of a body that names nothing else
    return not _DIGEST_WORDS.isdisjoint(_parts(name)) or name == "delivery_key"


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.lower() for part in _NAME_PART.findall(name[:200])) or ("",)


MASK: Final = "[redacted]"

_MIN_SECRET_CHARS: Final = 8
_MAX_TEXT_CHARS: Final = 8192
_OVERLAP_CHARS: Final = (
    256  #: cut off as well, since the cut may go through the middle of what a pass would have masked
)

#: UUIDs, and words joined by dots and underscores: most values of most lines, done with at once.
_PLAIN_VALUE: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?P<words>[a-z]{1,24}(?:[._][a-z]{1,24})*)"
)
_PREFIX: Final = re.compile(r"(?:whsec|sk|pk|rk|bk)_")
_MIN_MASKED_CHARS: Final = 8  #: a sort code; nothing shorter is masked but the value of a pair

#: In a group of its own: split() keeps it, between the parts that may hold numbers of cards and accounts.
_UUID: Final = re.compile(
    r"((?<![0-9A-Za-z])[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}(?![0-9A-Za-z]))"
)
_CARD: Final = re.compile(r"\d(?:[ \-]?\d){12,}")
_DIGITS: Final = re.compile(r"\d+")
_IBAN_START: Final = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}\d{2}(?=[ \-]?[0-9A-Za-z])")
_IBAN_REST: Final = re.compile(r"(?:[ \-]?[0-9A-Za-z]){11,30}", re.ASCII)
_BANK: Final = re.compile(
    r"(?<![\d\-])(?:\d{2}[\- ]\d{2}[\- ]\d{2}|\d{6})[ ,/:|]{1,3}\d{8}(?!\d)"
    r"|(?<![\d\-])\d{2}-\d{2}-\d{2}(?![\d\-])"
    r"|(?<!\d)\d{8}[ ,/:|]{1,3}\d{2}-\d{2}-\d{2}(?![\d\-])"
    r"|(?i:\b(?:account|acct|a/c)(?:[ _\-]?(?:number|num|no))?\.?[ :=#]{1,3}\d{6,12}(?!\d))"
    r"|(?i:\bsort[ _\-]?code[ :=#]{1,3}\d{2}[ \-]?\d{2}[ \-]?\d{2}(?!\d))"
)
_SCHEME: Final = re.compile(r"(?i:\b(bearer|basic))\s+[A-Za-z0-9+/=._~\-]{6,}")
_TOKEN: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:whsec|sk|pk|rk|bk)_[A-Za-z0-9+/=_%\-]{6,}"  # keys by their prefixes
    r"|(?<![A-Za-z0-9_\-])eyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*"  # JSON web tokens
    r"|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=(?![A-Za-z0-9=])"  # 32 bytes in Base64
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
_HEX: Final = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64,}")
_USERINFO: Final = re.compile(r"(?<=://)[^/\s?#\"'<>]*@")
_QUERY: Final = re.compile(r"([?&][\w.\-\[\]%]{1,80}=)[^&\s\"'<>#]+")
_LINK: Final = re.compile(r"(/(?:callbacks|return)/)[^\s/?#\"'<>]+")  # our own signed tokens
_HEADER: Final = re.compile(r"(?i:\b((?:proxy-)?authori[sz]ation|(?:set-)?cookie))([\\\"']*\s*[:=]\s*)([^\r\n]+)")
_PAIR: Final = re.compile(
    r"(?i:((?:api[_\-]?key|secret|token|passw(?:or)?d|passphrase|signature|card[_\-]?number|account[_\-]?number"
    r"|sort[_\-]?code|iban|cvv|cvc)))"
    r"([\\\"']*\s*[:=]\s*)"
    r"(?!\[redacted\])(?:b?\\*\"[^\"\\]*|b?\\*'[^'\\]*|[^\s,;&}\])\"']+)"
)


class RegisteredSecrets:
    """Literal values of the configured secrets, in every form that a text may hold."""

    def __init__(self) -> None:
        self._encoded_forms: set[str] = set()
        self.pattern: re.Pattern[str] | None = None
        self.shortest = 0

    def add(self, values: Iterable[str]) -> None:
        """Register values to mask; values of fewer than 8 characters are left out."""
        for value in values:
            for line in {value, *value.splitlines()}:
                if len(line) >= _MIN_SECRET_CHARS:
                    self._encoded_forms |= _encoded_forms(line)
        self.shortest = min(map(len, self._encoded_forms), default=0)
        longest_first = sorted(self._encoded_forms, key=lambda form: (-len(form), form))
        self.pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def clear(self) -> None:
        """Forget all values."""
        self._encoded_forms.clear()
        self.pattern = None


def _encoded_forms(value: str) -> set[str]:
    return {
        value,
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        repr(value.encode())[2:-1],
        base64.b64encode(value.encode()).decode(),
        value.encode().hex(),
    }


def redact_text(text: str, registered: RegisteredSecrets, *, keep_digests: bool = False) -> str:
    """Mask everything secret in the text. `keep_digests` spares hexadecimal digests."""
    if registered.pattern is not None and len(text) >= registered.shortest:
        text = registered.pattern.sub(MASK, text)
    if len(text) < _MIN_MASKED_CHARS and "=" not in text and ":" not in text:
        return text
    harmless = _PLAIN_VALUE.fullmatch(text)
    if harmless and not (harmless["words"] and "_" in text and _PREFIX.search(text)):
        return text
    if len(text) > _MAX_TEXT_CHARS + _OVERLAP_CHARS:
        return _mask_patterns(text[: _MAX_TEXT_CHARS + _OVERLAP_CHARS], keep_digests)[:-_OVERLAP_CHARS] + " [cut]"
    return _mask_patterns(text, keep_digests)


def _mask_patterns(text: str, keep_digests: bool) -> str:
    has_digits = _DIGITS.search(text) is not None
    if keep_digests and _is_digest(text):
        return text
    if "/" in text or "=" in text:
        text = _USERINFO.sub(f"{MASK}@", text)
        text = _LINK.sub(rf"\1{MASK}", text)
        text = _QUERY.sub(rf"\1{MASK}", text)
    if has_digits:
        text = "".join(
            part if at % 2 else _mask_ibans(_CARD.sub(_mask_cards, _BANK.sub(MASK, part)))
            for at, part in enumerate(_UUID.split(text))
        )
    text = _SCHEME.sub(rf"\1 {MASK}", text)
    text = _TOKEN.sub(MASK, text)
    if not keep_digests:
        text = _HEX.sub(MASK, text)
    if ":" in text or "=" in text:
        text = _HEADER.sub(rf"\1\2{MASK}", text)
        text = _PAIR.sub(rf"\1\2{MASK}", text)
    return text


def _is_digest(text: str) -> bool:
    """Return whether the text is only a digest, with or without its algorithm's name."""
    value = text.rpartition(":")[2]
    return len(text) <= 160 and len(value) >= 32 and all(char in "0123456789abcdefABCDEF" for char in value)


def _mask_cards(match: re.Match[str]) -> str:
    """Mask the digits if some of them, in whole groups, are a card number."""
    text = match[0]
    groups = [(group.start(), group.end()) for group in _DIGITS.finditer(text)]
    for first, (start, _) in enumerate(groups):
        for _, end in groups[first:]:
            digits = "".join(char for char in text[start:end] if char.isdecimal())
            if len(digits) > 19:
                break
            if len(digits) >= 13 and _passes_luhn(digits):
                # the neighbours go too: where a card number begins and ends is a guess
                return MASK
    return text


def _passes_luhn(digits: str) -> bool:
    total = 0
    for at, char in enumerate(reversed(digits)):
        number = int(char)
        if at % 2:
            number = number * 2 - 9 if number > 4 else number * 2
        total += number
    return total % 10 == 0


def _mask_ibans(text: str) -> str:
    """Mask account numbers whose check digits are right, whatever surrounds them."""
    parts: list[str] = []
    done = 0
    for start in _IBAN_START.finditer(text):
        rest = _IBAN_REST.match(text, start.end())
        if start.start() < done or rest is None:
            continue
        for end in range(rest.end(), start.end() + 10, -1):
            if text[end - 1].isalnum() and not text[end : end + 1].isalnum():
                chars = "".join(char for char in text[start.start() : end] if char.isalnum())
                if len(chars) >= 15 and _passes_mod_97(chars):
                    parts += (text[done : start.start()], MASK)
                    done = end
                    break
    return "".join([*parts, text[done:]])


def _passes_mod_97(chars: str) -> bool:
    if not chars.isascii():
        return False
    turned = (chars[4:] + chars[:4]).upper()
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


__all__ = ["DROPPED", "MASK", "forget_secrets", "redact", "redact_answer", "redact_event", "register_secrets"]

DROPPED: Final = "[dropped]"  #: in place of a value that could not be made safe

_MAX_DEPTH: Final = 12
_MAX_ITEMS: Final = 200  #: of one container
_MAX_NODES: Final = 5_000  #: of one line, so that a huge or endless value cannot stop the process
_MIN_CARD_NUMBER: Final = 10**12

_registered: Final = RegisteredSecrets()


def register_secrets(values: Iterable[str]) -> None:
    """Mask these values in every log line from now on.

    Also their URL-encoded, JSON and Base64 forms. Values of fewer than 8 characters are left out: masking them would
    garble ordinary words.
    """
    _registered.add(values)


def forget_secrets() -> None:
    """Undo register_secrets(), for tests and for a reload."""
    _registered.clear()


def redact_event(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Convert the event to JSON values with everything secret masked, for structlog.

    Never raises: drops the value instead.
    """
    line: dict[str, Any] = {}
    nodes = [_MAX_NODES]
    for key, value in event.items():
        try:
            line[redact_text(key, _registered)] = _redact_named(key, value, _MAX_DEPTH, nodes)
        except Exception:  # noqa: BLE001 - whatever a value's own code raises must not cost the line
            line[_safe_key(key)] = DROPPED
    return line


def redact(value: Any) -> Any:
    """Convert the value to JSON values with everything secret masked.

    Raises only what the value's own code raises.
    """
    return _redact_value(value, _MAX_DEPTH, [_MAX_NODES], keep_digests=False)


#: Characters that are kept of a sink's answer.
MAX_ANSWER_CHARS: Final = 2048


def redact_answer(body: bytes) -> str | None:
    """Return the beginning of a sink's answer with everything secret masked.

    None where nothing is left of it. JSON is masked by the names of its fields as well; of a text that is cut the end
    is left out, since the cut may go through what would have been masked.
    """
    text = body.decode("utf-8", "backslashreplace").replace("\x00", "\\x00").strip()
    is_cut = len(body) > MAX_ANSWER_CHARS
    try:
        content = None if is_cut else json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict | list):
        shown = json.dumps(redact(content), ensure_ascii=False)
        shown = shown.encode("utf-8", "backslashreplace").decode()
    else:
        shown = redact_text(text, _registered)
        shown = shown[:-_OVERLAP_CHARS] if is_cut else shown
    return shown[:MAX_ANSWER_CHARS] or None


def _safe_key(key: object) -> str:
    return key if isinstance(key, str) and key.isidentifier() and len(key) < 40 else "unnamed"


def _redact_named(name: object, value: Any, depth: int, nodes: list[int]) -> Any:
    if value is None or value is True or value is False:
        return value
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if not isinstance(text, str):
        return _redact_value(value, depth, nodes, keep_digests=False)
    if is_secret_name(text):
        return MASK
    return _redact_value(value, depth, nodes, keep_digests=holds_digest(text))


def _redact_value(value: Any, depth: int, nodes: list[int], *, keep_digests: bool) -> Any:
    nodes[0] -= 1
    if depth < 0 or nodes[0] < 0:
        return DROPPED
    if value is None or value is True or value is False:
        return value
    if isinstance(value, Enum):
        return _redact_value(value.value, depth - 1, nodes, keep_digests=keep_digests)
    if isinstance(value, str):
        return redact_text(str.__str__(value), _registered, keep_digests=keep_digests)
    if isinstance(value, int | float):
        return _redact_number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value).decode("utf-8", "backslashreplace")
        return redact_text(text, _registered, keep_digests=keep_digests)
    if isinstance(value, UUID | date | time):
        return str(value)
    if isinstance(value, Mapping):
        return _redact_mapping(value, depth, nodes)
    if isinstance(value, list | tuple | set | frozenset):
        return _redact_items(value, depth, nodes, keep_digests=keep_digests)
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {value}", _registered)
    return redact_text(repr(value), _registered)


def _redact_number(value: float) -> int | float | str:
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)  # JSON has no word for it
        number: int | float = float(value)
        whole = int(value)
    else:
        number = whole = int(value)
    if abs(whole) >= _MIN_CARD_NUMBER and MASK in redact_text(str(abs(whole)), _registered):
        return MASK
    return number


def _redact_mapping(value: Mapping[Any, Any], depth: int, nodes: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for at, (key, inner) in enumerate(value.items()):
        if at == _MAX_ITEMS:
            found["..."] = DROPPED
            break
        shown = _redact_value(key, depth - 1, nodes, keep_digests=False)
        found[shown if isinstance(shown, str) else str(shown)] = _redact_named(key, inner, depth - 1, nodes)
    return found


def _redact_items(value: Iterable[Any], depth: int, nodes: list[int], *, keep_digests: bool) -> list[Any]:
    found: list[Any] = []
    for at, inner in enumerate(value):
        if at == _MAX_ITEMS:
            found.append(DROPPED)
            break
        found.append(_redact_value(inner, depth - 1, nodes, keep_digests=keep_digests))
    # headers come as pairs of name and value
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str | bytes):
        found[1] = _redact_named(value[0], value[1], depth - 1, nodes)
    return found
