"""What is masked within text, wherever it stands. One pass per kind, so that no kind can hide another."""

import base64
import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

MASK: Final = "[redacted]"

_MIN_REGISTERED: Final = 8
_LONGEST: Final = 8192
_SEAM: Final = 256  #: cut off as well, since the cut may go through the middle of what a pass would have masked

#: UUIDs, and words joined by dots and underscores: most values of most lines, done with at once.
_HARMLESS: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?P<words>[a-z]{1,24}(?:[._][a-z]{1,24})*)"
)
_PREFIX: Final = re.compile(r"(?:whsec|sk|pk|rk|bk)_")
_SHORTEST: Final = 8  #: a sort code; nothing shorter is masked but the value of a pair

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


class Registered:
    """The configured secrets' literal values, in every form in which they may turn up in a text."""

    def __init__(self) -> None:
        self._forms: set[str] = set()
        self.pattern: re.Pattern[str] | None = None
        self.shortest = 0

    def add(self, values: Iterable[str]) -> None:
        """Mask these values too; values of fewer than 8 characters are left out."""
        for value in values:
            for line in {value, *value.splitlines()}:
                if len(line) >= _MIN_REGISTERED:
                    self._forms |= _forms(line)
        self.shortest = min(map(len, self._forms), default=0)
        longest_first = sorted(self._forms, key=lambda form: (-len(form), form))
        self.pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def clear(self) -> None:
        """Mask none."""
        self._forms.clear()
        self.pattern = None


def _forms(value: str) -> set[str]:
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


def redact_text(text: str, registered: Registered, *, keep_digests: bool = False) -> str:
    """The text with everything secret in it masked. `keep_digests` spares hexadecimal digests."""
    if registered.pattern is not None and len(text) >= registered.shortest:
        text = registered.pattern.sub(MASK, text)
    if len(text) < _SHORTEST and "=" not in text and ":" not in text:
        return text
    harmless = _HARMLESS.fullmatch(text)
    if harmless and not (harmless["words"] and "_" in text and _PREFIX.search(text)):
        return text
    if len(text) > _LONGEST + _SEAM:
        return _redacted(text[: _LONGEST + _SEAM], keep_digests)[:-_SEAM] + " [cut]"
    return _redacted(text, keep_digests)


def _redacted(text: str, keep_digests: bool) -> str:
    has_digits = _DIGITS.search(text) is not None
    if keep_digests and _is_digest(text):
        return text
    if "/" in text or "=" in text:
        text = _USERINFO.sub(f"{MASK}@", text)
        text = _LINK.sub(rf"\1{MASK}", text)
        text = _QUERY.sub(rf"\1{MASK}", text)
    if has_digits:
        text = "".join(
            part if at % 2 else _without_ibans(_CARD.sub(_without_cards, _BANK.sub(MASK, part)))
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
    """Whether it is nothing but a digest, with or without the name of its algorithm."""
    value = text.rpartition(":")[2]
    return len(text) <= 160 and len(value) >= 32 and all(letter in "0123456789abcdefABCDEF" for letter in value)


def _without_cards(match: re.Match[str]) -> str:
    """The digits unchanged unless some of them, from one group's start to another's end, are a card number."""
    text = match[0]
    groups = [(group.start(), group.end()) for group in _DIGITS.finditer(text)]
    for first, (start, _) in enumerate(groups):
        for _, end in groups[first:]:
            digits = "".join(letter for letter in text[start:end] if letter.isdecimal())
            if len(digits) > 19:
                break
            if len(digits) >= 13 and _passes_luhn(digits):
                # the neighbours go too: where a card number begins and ends is a guess
                return MASK
    return text


def _passes_luhn(digits: str) -> bool:
    total = 0
    for at, letter in enumerate(reversed(digits)):
        number = int(letter)
        if at % 2:
            number = number * 2 - 9 if number > 4 else number * 2
        total += number
    return total % 10 == 0


def _without_ibans(text: str) -> str:
    """The text without account numbers whose check digits are right, whatever words stand around them."""
    parts: list[str] = []
    done = 0
    for start in _IBAN_START.finditer(text):
        rest = _IBAN_REST.match(text, start.end())
        if start.start() < done or rest is None:
            continue
        for end in range(rest.end(), start.end() + 10, -1):
            if text[end - 1].isalnum() and not text[end : end + 1].isalnum():
                letters = "".join(letter for letter in text[start.start() : end] if letter.isalnum())
                if len(letters) >= 15 and _passes_mod_97(letters):
                    parts += (text[done : start.start()], MASK)
                    done = end
                    break
    return "".join([*parts, text[done:]])


def _passes_mod_97(letters: str) -> bool:
    if not letters.isascii():
        return False
    turned = (letters[4:] + letters[:4]).upper()
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1
