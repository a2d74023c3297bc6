"""API keys: made from 256 random bits, shown once, kept as a digest, compared in constant time."""

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

#: How much of a key is kept to tell it apart: 36 of its 256 random bits.
_SHOWN: Final = len("rk_test_") + 6

#: Compared with where no key has the digest, so that both ways take as long.
_NOBODYS: Final = "0" * 64


class Environment(StrEnum):
    """Which accounts a key reaches."""

    LIVE = "live"
    TEST = "test"


def made(
    name: str,
    environment: Environment,
    scopes: Sequence[KeyScope],
    now: datetime,
    *,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key's record, and the key itself, which is nowhere else."""
    text = f"rk_{environment.value}_{secrets.token_urlsafe(32)}"
    kept = ApiKey(
        id=new_id(),
        name=name,
        environment=environment.value,
        scopes=[scope.value for scope in KeyScope if scope in scopes],
        digest=digest_of(text),
        prefix=text[:_SHOWN],
        created_at=now,
        expires_at=expires_at,
    )
    return kept, text


def rotated(old: ApiKey, now: datetime) -> tuple[ApiKey, str]:
    """A new key that may do what the old one may."""
    scopes = [KeyScope(scope) for scope in old.scopes]
    return made(old.name, Environment(old.environment), scopes, now)


def digest_of(text: str) -> str:
    """What is kept of a key."""
    return sha256(text.encode()).hexdigest()


def presented(headers: Headers) -> str:
    """The key of a request: a bearer token, or the user name of HTTP basic; raises KeyMissing or KeyInvalid."""
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
    """The key's record; raises KeyInvalid, which tells not why. Reads storage, and writes at most once a minute."""
    if not _FORM.fullmatch(text):
        raise KeyInvalid
    digest = digest_of(text)
    with database.read() as unit:
        key = api_keys.by_digest(unit, digest)
    is_same = hmac.compare_digest(digest, key.digest if key is not None else _NOBODYS)
    if key is None or not is_same or not api_keys.is_good(key, now):
        raise KeyInvalid
    if api_keys.is_use_due(key, now):
        _note_use(database, key, now)
    return key


def _note_use(database: Database, key: ApiKey, now: datetime) -> None:
    """That a key was used is good to know, and no reason to refuse what it asks for."""
    try:
        with database.write() as unit:
            api_keys.note_use(unit, key.id, now)
    except StorageUnavailable as fault:
        log.warning("key.failed", key_id=key.id, error=fault.message)
