"""Rule for names of payments: references, and a provider's ids and aliases.

One rule for what is sent and for what is read, so that whatever is accepted on the way out is read on the way in. It
looks at code points and never at their properties, which differ between versions of Unicode and so of Python.
"""

import re
from functools import lru_cache
from typing import Final

MAX_NAME_CHARS: Final = 200

#: Control characters, line and paragraph separators, and halves of surrogate pairs, which UTF-8 has no bytes for.
_FORBIDDEN: Final = "\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029"
_SURROGATES: Final = "\\ud800-\\udfff"

#: Spaces of every width, and characters without any. A name of these alone is seen by nobody.
_BLANK: Final = " \\xa0\\xad\\u1680\\u2000-\\u200f\\u202f\\u205f\\u2060\\u3000\\ufeff"

#: A segment of a path that leads elsewhere than down, however the server on the way spells its slashes.
_DOT_SEGMENT: Final = r"(?:.*[/\\])?\.{1,2}(?:[/\\]|$)"

#: The rule as a regular expression that JSON Schema, ECMAScript and Python read alike.
NAME_PATTERN: Final = f"^(?!{_DOT_SEGMENT})(?=.*[^{_BLANK}])[^{_FORBIDDEN}]*$"

#: The rule in words; completes the sentence "<field> ...".
NAME_RULE: Final = (
    f"has 1 to {MAX_NAME_CHARS} characters, some of them visible, no control characters or line breaks, and no part"
    " between slashes that is . or .."
)

_NAME: Final = re.compile(rf"(?!{_DOT_SEGMENT})(?=.*[^{_BLANK}])[^{_FORBIDDEN}{_SURROGATES}]*")

#: What nearly all names look like, told without the whole rule.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_:\-]+")

_LINE: Final = re.compile(rf"[^{_FORBIDDEN}{_SURROGATES}]*")

_UNKEEPABLE: Final = re.compile("[\x00\ud800-\udfff]")


@lru_cache(maxsize=10_000)  # each name is asked about several times for each of a payment's messages
def is_name(text: str) -> bool:
    """Return whether the text may name a payment, in what we send and in what we read."""
    if not 0 < len(text) <= MAX_NAME_CHARS:
        return False
    return _PLAIN.fullmatch(text) is not None or _NAME.fullmatch(text) is not None


def is_line(text: str, max_chars: int) -> bool:
    """Return whether the text, maybe empty, is one line that every database holds."""
    return len(text) <= max_chars and _LINE.fullmatch(text) is not None


def is_kept(text: str, max_chars: int) -> bool:
    """Return whether every database holds the text as it is.

    PostgreSQL keeps no NUL, and UTF-8 has no bytes for half of a surrogate pair.
    """
    return len(text) <= max_chars and _UNKEEPABLE.search(text) is None
