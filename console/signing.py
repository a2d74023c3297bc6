"""What the console signs: its cookies, and the tokens of its forms. Every key verifies, the last one signs."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from itsdangerous import BadData, Signer, URLSafeSerializer

#: Of the session cookie: another is not read.
_VERSION: Final = 1

#: How long a browser is known in which somebody has logged in; each log-in begins it anew.
KNOWN_BROWSER_LIFETIME: Final = timedelta(days=180)

FLASH_LIFETIME: Final = timedelta(minutes=1)  #: how long the next page may take to come
_LOGIN_PAGE_LIFETIME: Final = timedelta(hours=1)  #: how long a log-in page may stand open


class ConsoleSigner:
    """Each purpose has a salt of its own, so that nothing signed for one is taken for another."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        given = list(keys)

        def serializer(purpose: str) -> URLSafeSerializer:
            return URLSafeSerializer(given, salt=f"receipted.console.{purpose}", signer_kwargs=_SHA256)

        self._session, self._flash, self._before = serializer("session"), serializer("flash"), serializer("login")
        self._known = serializer("browser")
        self._form = Signer(given, salt="receipted.console.form", key_derivation="hmac", digest_method=sha256)

    def session(self, secret: str) -> str:
        """What the browser keeps."""
        return str(self._session.dumps([_VERSION, secret]))

    def secret(self, cookie: str) -> str | None:
        """The session's secret; None for anything that was not signed here."""
        version, secret = _read(self._session, cookie, 2) or (None, None)
        return secret if version == _VERSION and isinstance(secret, str) else None

    def form(self, secret: str) -> str:
        """The token of every form of this session, or of this log-in page; it tells nothing of the secret."""
        return self._form.get_signature(secret).decode()

    def is_form(self, secret: str, token: str) -> bool:
        """Whether the token is the session's; in constant time."""
        return token.isascii() and self._form.verify_signature(secret, token)

    def before(self, now: datetime) -> str:
        """A secret for a log-in page, which ends within the hour."""
        return str(self._before.dumps([new_secret(), int(now.timestamp())]))

    def is_before(self, cookie: str, now: datetime) -> bool:
        """Whether the cookie is a log-in page's, and has not ended."""
        _, at = _read(self._before, cookie, 2) or (None, None)
        return _is_fresh(at, now, _LOGIN_PAGE_LIFETIME)

    def known(self, name: str, now: datetime) -> str:
        """What tells a browser in which somebody of that name has logged in. It opens nothing."""
        return str(self._known.dumps([digest_of(name), new_secret(), int(now.timestamp())]))

    def browser(self, cookie: str, name: str, now: datetime) -> str | None:
        """Its secret; None where it is of another name, is old, or was not signed here."""
        of, secret, at = _read(self._known, cookie, 3) or (None, None, None)
        is_known = of == digest_of(name) and isinstance(secret, str) and _is_fresh(at, now, KNOWN_BROWSER_LIFETIME)
        return str(secret) if is_known else None

    def flash(self, tone: str, words: str, now: datetime) -> str:
        """What the next page says, kept by the browser until then."""
        return str(self._flash.dumps([tone, words, int(now.timestamp())]))

    def flashed(self, cookie: str, now: datetime) -> tuple[str, str] | None:
        """The tone and the words; None for anything that was not signed here, or is old."""
        tone, words, at = _read(self._flash, cookie, 3) or (None, None, None)
        return (str(tone), str(words)) if _is_fresh(at, now, FLASH_LIFETIME) else None


def _read(serializer: URLSafeSerializer, cookie: str, length: int) -> list[Any] | None:
    """The values that were signed; None for anything else."""
    try:
        values = serializer.loads(cookie)
    except (BadData, ValueError, TypeError):
        return None
    return values if isinstance(values, list) and len(values) == length else None


def _is_fresh(at: Any, now: datetime, span: timedelta) -> bool:
    return isinstance(at, int) and 0 <= now.timestamp() - at < span.total_seconds()


_SHA256: Final = {"key_derivation": "hmac", "digest_method": sha256}


def new_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return sha256(secret.encode()).hexdigest()
