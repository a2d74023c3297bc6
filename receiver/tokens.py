"""Tokens in our callback and return URLs: signed, so that only URLs that we gave out are served."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from itsdangerous import BadData, URLSafeSerializer

from receiver.errors import UnknownToken

Purpose = Literal["callback", "return"]


@dataclass(frozen=True, slots=True)
class About:
    """The payment that a token stands for."""

    account: str
    kind: str
    payment_id: str


class Tokens:
    """Issues and reads tokens; the last key signs, every key verifies, so that keys can be rotated."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._by_purpose = {
            purpose: URLSafeSerializer(list(keys), salt=f"receipted.{purpose}") for purpose in ("callback", "return")
        }

    def issue(self, purpose: Purpose, about: About) -> str:
        """A token that `read` gives back, for the same purpose only."""
        return str(self._by_purpose[purpose].dumps([about.account, about.kind, about.payment_id]))

    def read(self, purpose: Purpose, token: str) -> About:
        """What the token stands for; raises UnknownToken for any text that was not issued for this purpose."""
        try:
            account, kind, payment_id = self._by_purpose[purpose].loads(token)
        except (BadData, ValueError, TypeError):
            raise UnknownToken from None
        return About(str(account), str(kind), str(payment_id))
