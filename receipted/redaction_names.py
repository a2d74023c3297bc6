"""Which names hold values that must not be written."""

import re
from functools import lru_cache
from typing import Final

_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

#: A name with one of these words in it.
_WORDS: Final = frozenset(
    {
        *("authorization", "authorisation", "bearer", "body", "cookie", "cookies", "credential", "credentials", "cvc"),
        *("cvv", "iban", "ibans", "pan", "passphrase", "passwd", "password", "passwords", "payload", "pin", "pwd"),
        *("raw", "secret", "secrets", "signature", "signatures", "token", "tokens"),
    }
)

#: A name with one of these in it, once its words are joined by nothing.
_JOINED: Final = (
    *("accesskey", "accountnumber", "apikey", "cardnumber", "privatekey", "routingnumber", "secretkey", "signingkey"),
    *("sortcode", "webhookkey"),
)

#: Last words of names that are about a secret and do not hold it: body_bytes, secret_name, token_age_seconds.
_ABOUT: Final = frozenset(
    {
        *("age", "at", "bytes", "count", "digest", "encoding", "hash", "id", "ids", "kind", "length", "limit"),
        *("name", "names", "path", "problem", "reason", "seconds", "size", "status", "type", "url"),
    }
)

_DIGESTS: Final = frozenset({"digest", "digests", "hash", "hashes"})


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether values under this name are masked whatever they are."""
    parts = _parts(name)
    joined = "".join(parts)
    if any(word in joined for word in _JOINED):
        return parts[-1] not in _ABOUT
    return not _WORDS.isdisjoint(parts) and parts[-1] not in _ABOUT


@lru_cache(maxsize=4096)
def holds_digest(name: str) -> bool:
    """Whether a long hexadecimal value under this name is a digest, which may be written, and no signature."""
    # a delivery key may be the digest of a body that names nothing else
    return not _DIGESTS.isdisjoint(_parts(name)) or name == "delivery_key"


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.lower() for part in _PART.findall(name[:200])) or ("",)
