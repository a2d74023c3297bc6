"""What the console signs: its cookies, and the tokens of its forms. Every key verifies, the last one signs."""

import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from itsdangerous import BadData, Signer, TimestampSigner, URLSafeSerializer, URLSafeTimedSerializer

#: Of the session cookie: another is not read.
_VERSION: Final = 1

_FLASH_SECONDS: Final = 60
_FORM_SECONDS: Final = 3600  #: how long a log-in form may stand open


class Signing:
    """Each purpose has a salt of its own, so that nothing signed for one is taken for another."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        given = list(keys)
        self._session = URLSafeSerializer(given, salt="receipted.console.session", signer_kwargs=_SHA256)
        self._flash = URLSafeTimedSerializer(given, salt="receipted.console.flash", signer_kwargs=_SHA256)
        self._form = Signer(given, salt="receipted.console.form", key_derivation="hmac", digest_method=sha256)
        self._before = TimestampSigner(
            given, salt="receipted.console.login", key_derivation="hmac", digest_method=sha256
        )

    def session(self, secret: str) -> str:
        """What the browser keeps."""
        return str(self._session.dumps([_VERSION, secret]))

    def secret(self, cookie: str) -> str | None:
        """The session's secret; None for anything that was not signed here."""
        try:
            version, secret = self._session.loads(cookie)
        except (BadData, ValueError, TypeError):
            return None
        return secret if version == _VERSION and isinstance(secret, str) else None

    def form(self, secret: str) -> str:
        """The token of every form of this session, or of this log-in page; it tells nothing of the secret."""
        return self._form.get_signature(secret).decode()

    def is_form(self, secret: str, token: str) -> bool:
        """Whether the token is the session's; in constant time."""
        return token.isascii() and self._form.verify_signature(secret, token)

    def before(self) -> str:
        """A secret for a log-in page, which ends within the hour."""
        return self._before.sign(new_secret()).decode()

    def is_before(self, cookie: str) -> bool:
        """Whether the cookie is a log-in page's."""
        return self._before.validate(cookie, max_age=_FORM_SECONDS)

    def flash(self, tone: str, words: str) -> str:
        """What the next page says, kept by the browser until then."""
        return str(self._flash.dumps([tone, words]))

    def flashed(self, cookie: str) -> tuple[str, str] | None:
        """The tone and the words; None for anything that was not signed here, or is old."""
        try:
            tone, words = self._flash.loads(cookie, max_age=_FLASH_SECONDS)
        except (BadData, ValueError, TypeError):
            return None
        return str(tone), str(words)


_SHA256: Final = {"key_derivation": "hmac", "digest_method": sha256}


def new_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return sha256(secret.encode()).hexdigest()
