"""API keys: 256 random bits, kept as a digest, compared in constant time."""

import base64
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final

import structlog
from starlette.datastructures import Headers

from api.errors import KeyInvalid, KeyMissing
from service.permissions import KeyScope
from storage import api_keys
from storage.database import Database
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.tables_support import ApiKey

log = structlog.get_logger()

_FORM: Final = re.compile(r"rk_(live|test)_[A-Za-z0-9_-]{43}", re.ASCII)

#: Characters of a key that are kept to tell it apart: 36 of its 256 random bits.
_PREFIX_CHARS: Final = len("rk_test_") + 6

#: Compared with where no key has the digest, so that both ways take as long.
_NO_DIGEST: Final = "0" * 64


class Environment(StrEnum):
    """Environment of the accounts that a key reaches."""

    LIVE = "live"
    TEST = "test"


def new_key(
    name: str,
    environment: Environment,
    scopes: Sequence[KeyScope],
    now: datetime,
    *,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Return the record of a new key, and the key itself, which is kept nowhere."""
    text = f"rk_{environment.value}_{secrets.token_urlsafe(32)}"
    kept = ApiKey(
        id=new_id(),
        name=name,
        environment=environment.value,
        scopes=[scope.value for scope in KeyScope if scope in scopes],
        digest=digest_of(text),
        prefix=text[:_PREFIX_CHARS],
        created_at=now,
        expires_at=expires_at,
    )
    return kept, text


def rotated_key(old: ApiKey, now: datetime) -> tuple[ApiKey, str]:
    """Return a new key that may do what the old one may."""
    scopes = [KeyScope(scope) for scope in old.scopes]
    return new_key(old.name, Environment(old.environment), scopes, now)


def digest_of(text: str) -> str:
    """Return the digest that is kept of a key."""
    return sha256(text.encode()).hexdigest()


def presented(headers: Headers) -> str:
    """Return the key of a request: a bearer token, or the user name of HTTP basic.

    Raises KeyMissing or KeyInvalid.
    """
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            name, _, _ = base64.b64decode(value.strip(), validate=True).decode("ascii").partition(":")
        except ValueError:  # not Base64, not ASCII before or after: each is one
            raise KeyInvalid from None
        return name
    raise KeyMissing


def authenticated(database: Database, text: str, now: datetime) -> ApiKey:
    """Return the record of a good key; raises KeyInvalid, which does not say why.

    Reads storage, and writes at most once a minute.
    """
    if not _FORM.fullmatch(text):
        raise KeyInvalid
    digest = digest_of(text)
    with database.read() as unit:
        key = api_keys.by_digest(unit, digest)
    is_same = hmac.compare_digest(digest, key.digest if key is not None else _NO_DIGEST)
    if key is None or not is_same or not api_keys.is_good(key, now):
        raise KeyInvalid
    if api_keys.is_use_due(key, now):
        _note_use(database, key, now)
    return key


def _note_use(database: Database, key: ApiKey, now: datetime) -> None:
    """Record the use of a key; a failure to do so refuses nothing."""
    try:
        with database.write() as unit:
            api_keys.note_use(unit, key.id, now)
    except StorageUnavailable as fault:
        log.warning("key.failed", key_id=key.id, error=fault.message)
