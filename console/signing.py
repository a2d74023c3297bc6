"""Signed cookies and form tokens. Every key verifies, the last one signs."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from itsdangerous import BadData, Signer, URLSafeSerializer

#: Of the session cookie: another is not read.
_VERSION: Final = 1

#: A browser is known for this long after its last log-in.
KNOWN_BROWSER_LIFETIME: Final = timedelta(days=180)

FLASH_LIFETIME: Final = timedelta(minutes=1)  #: how long the next page may take to come
CODE_LIFETIME: Final = timedelta(minutes=5)  #: how long a code may take to be typed after the password
OIDC_LIFETIME: Final = timedelta(minutes=10)  #: how long a log-in at a provider may take
_LOGIN_PAGE_LIFETIME: Final = timedelta(hours=1)  #: how long a log-in page may stand open


class ConsoleSigner:
    """Signs and verifies; each purpose has a salt, so that none passes for another."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        given = list(keys)

        def serializer(purpose: str) -> URLSafeSerializer:
            return URLSafeSerializer(given, salt=f"receipted.web_wiring.{purpose}", signer_kwargs=_SHA256)

        self._session, self._flash, self._before = serializer("session"), serializer("flash"), serializer("login")
        self._known, self._pending, self._oidc = serializer("browser"), serializer("second"), serializer("oidc")
        self._form = Signer(given, salt="receipted.web_wiring.form", key_derivation="hmac", digest_method=sha256)

    def session(self, secret: str) -> str:
        """Return the session's cookie."""
        return str(self._session.dumps([_VERSION, secret]))

    def secret(self, cookie: str) -> str | None:
        """Return the session's secret; None for a cookie that was not signed here."""
        version, secret = _read(self._session, cookie, 2) or (None, None)
        return secret if version == _VERSION and isinstance(secret, str) else None

    def form(self, secret: str) -> str:
        """Return the token of the forms of a session or log-in; it hides the secret."""
        return self._form.get_signature(secret).decode()

    def is_form(self, secret: str, token: str) -> bool:
        """Verify the token of a form, in constant time."""
        return token.isascii() and self._form.verify_signature(secret, token)

    def before(self, now: datetime) -> str:
        """Return a secret for a log-in page, valid for an hour."""
        return str(self._before.dumps([new_secret(), int(now.timestamp())]))

    def is_before(self, cookie: str, now: datetime) -> bool:
        """Verify the cookie of a log-in page, and its age."""
        _, at = _read(self._before, cookie, 2) or (None, None)
        return _is_fresh(at, now, _LOGIN_PAGE_LIFETIME)

    def known(self, name: str, now: datetime) -> str:
        """Return the cookie of a browser where this name has logged in; grants nothing."""
        return str(self._known.dumps([digest_of(name), new_secret(), int(now.timestamp())]))

    def browser(self, cookie: str, name: str, now: datetime) -> str | None:
        """Return the browser's secret; None for another name, an old or a foreign cookie."""
        of, secret, at = _read(self._known, cookie, 3) or (None, None, None)
        is_known = of == digest_of(name) and isinstance(secret, str) and _is_fresh(at, now, KNOWN_BROWSER_LIFETIME)
        return str(secret) if is_known else None

    def pending(self, person_id: str, password_hash: str, now: datetime) -> str:
        """Return the cookie of a log-in whose code is awaited."""
        return str(self._pending.dumps([person_id, digest_of(password_hash), int(now.timestamp())]))

    def pending_person(self, cookie: str, now: datetime) -> tuple[str, str] | None:
        """Return the person's id and the digest of their hash; None where it is over."""
        person_id, digest, at = _read(self._pending, cookie, 3) or (None, None, None)
        return (str(person_id), str(digest)) if _is_fresh(at, now, CODE_LIFETIME) else None

    def oidc(self, values: Sequence[str], now: datetime) -> str:
        """Return the cookie of a log-in that is under way at a provider."""
        return str(self._oidc.dumps([list(values), int(now.timestamp())]))

    def oidc_attempt(self, cookie: str, now: datetime) -> list[str] | None:
        """Return state, nonce, verifier and wanted page; None where it is over."""
        values, at = _read(self._oidc, cookie, 2) or (None, None)
        if not isinstance(values, list) or len(values) != 4 or not _is_fresh(at, now, OIDC_LIFETIME):
            return None
        return [str(each) for each in values]

    def flash(self, tone: str, words: str, now: datetime) -> str:
        """Return the cookie with the words for the next page."""
        return str(self._flash.dumps([tone, words, int(now.timestamp())]))

    def flashed(self, cookie: str, now: datetime) -> tuple[str, str] | None:
        """Return the tone and the words; None for an old or a foreign cookie."""
        tone, words, at = _read(self._flash, cookie, 3) or (None, None, None)
        return (str(tone), str(words)) if _is_fresh(at, now, FLASH_LIFETIME) else None


def _read(serializer: URLSafeSerializer, cookie: str, length: int) -> list[Any] | None:
    """Return the signed values; None for a foreign cookie."""
    try:
        values = serializer.loads(cookie)
    except (BadData, ValueError, TypeError):
        return None
    return values if isinstance(values, list) and len(values) == length else None


def _is_fresh(at: Any, now: datetime, span: timedelta) -> bool:
    return isinstance(at, int) and 0 <= now.timestamp() - at < span.total_seconds()


_SHA256: Final = {"key_derivation": "hmac", "digest_method": sha256}


def new_secret() -> str:
    """Generate 256 random bits."""
    return secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """Hash a secret for storage."""
    return sha256(secret.encode()).hexdigest()
