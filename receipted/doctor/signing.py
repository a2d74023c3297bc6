"""Signs a trial as the account's provider would, by another implementation than the one that verifies."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from providers.signing import Key
from receipted.wiring import WiredAccount
from sandbox import signing

_SIGNERS: Final[Mapping[str, Callable[[str, Any], signing.Signer]]] = {
    "alternative_payments": lambda secret, _options: signing.alternative_payments(secret),
    "stable_genius": lambda secret, _options: signing.stable_genius(secret),
    "payfield": lambda secret, options: signing.payfield(secret, options.digest_encoding),
    "banked": lambda secret, _options: signing.banked(secret),
}


def active_key(account: WiredAccount, now: datetime) -> Key | None:
    """The first of the account's webhook keys that is valid now."""
    return next(account.settings.keyring().active(now), None)


def signed(account: WiredAccount, key: Key, body: bytes, at: datetime) -> dict[str, str]:
    """The headers that the account's provider would add to this body at this instant."""
    return _SIGNERS[account.provider.name](key.secret.decode(), account.provider.options)(body, at)


def can_sign(account: WiredAccount) -> bool:
    """Whether it is known here how the account's provider signs."""
    return account.provider.name in _SIGNERS
