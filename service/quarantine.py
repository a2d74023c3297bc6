"""Redeems quarantined deliveries that verify now: recorded and removed at once."""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Final

import structlog

from providers.contract import Delivery
from providers.errors import DeliveryRejected
from providers.signing import Key
from receiver.intake import ReceivingAccount, verified_message
from receiver.returns import About
from service.errors import StillRejected
from storage import inbox, operator_actions, quarantine
from storage.database import Database
from storage.errors import NotFound
from storage.tables import InboxMessage, RejectedDelivery

log = structlog.get_logger()

_PAGE_SIZE: Final = 200


@dataclass(slots=True)
class Redeemed:
    """Result of redeeming an account's quarantine."""

    redeemed: list[str] = field(default_factory=list)  #: ids of inbox messages
    duplicates: int = 0  #: of those, how many were in the inbox already
    rejected: Counter[str] = field(default_factory=Counter)  #: by reason: still not authentic


class Redeemer:
    """Verifies quarantined deliveries again, as of when they were received.

    Uses the database, so call it in a thread. A crash in between leaves each delivery in exactly one of the two places.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        accounts: Callable[[], Mapping[str, ReceivingAccount]],
    ) -> None:
        self._database = database
        self._clock = clock
        self._accounts = accounts

    def redeem_all(self, account: str, *, by: str, reason: str, only: Container[str] | None = None) -> Redeemed:
        """Move everything of the account that verifies now to the inbox.

        A worker applies it from there.

        With `only`, deliveries of other ids stay where they are.
        """
        receiving = self._accounts()[account]
        result = Redeemed()
        after = ""
        while page := self._page(account, after):
            for rejected in page:
                if only is not None and rejected.id not in only:
                    continue
                try:
                    message = _verified(receiving, rejected)
                except DeliveryRejected as again:
                    result.rejected[_reason(rejected, again)] += 1
                    continue
                self._record(rejected, message, result, by=by, reason=reason)
            after = page[-1].id
        _log_redeemed(account, result)
        return result

    def redeem(self, rejected_id: str, *, by: str, reason: str) -> str:
        """Move one rejected delivery to the inbox; return the id of its message.

        Raises NotFound, also where its account is not configured any more, and StillRejected where it is not authentic
        with the keys of now.
        """
        with self._database.read() as unit:
            rejected = quarantine.get(unit, rejected_id)
        receiving = self._accounts().get(rejected.account)
        if receiving is None:
            raise NotFound("its account is not configured any more", param="account", code="unknown_account")
        try:
            message = _verified(receiving, rejected)
        except DeliveryRejected as again:
            words = f"it is still not authentic ({_reason(rejected, again).replace('_', ' ')}), and stays in quarantine"
            raise StillRejected(words) from None
        result = Redeemed()
        self._record(rejected, message, result, by=by, reason=reason)
        _log_redeemed(rejected.account, result)
        return result.redeemed[0]

    def _page(self, account: str, after: str) -> list[RejectedDelivery]:
        with self._database.read() as unit:
            return quarantine.find(unit, account, after=after, limit=_PAGE_SIZE)

    def _record(
        self, rejected: RejectedDelivery, message: InboxMessage, result: Redeemed, *, by: str, reason: str
    ) -> None:
        with self._database.write() as unit:
            recorded = inbox.record(unit, [message])[0]
            quarantine.remove(unit, rejected.id)
            operator_actions.note(
                unit,
                account=message.account,
                at=self._clock(),
                actor=by,
                action="redeem",
                subject=recorded.id,
                reason=reason.strip(),
            )
        result.redeemed.append(recorded.id)
        result.duplicates += recorded.is_duplicate


def _log_redeemed(account: str, result: Redeemed) -> None:
    log.info("quarantine.redeemed", account=account, redeemed=len(result.redeemed), rejected=result.rejected.total())


def _verified(account: ReceivingAccount, rejected: RejectedDelivery) -> InboxMessage:
    about = About(account.name, rejected.kind or "", rejected.about) if rejected.about else None
    headers = tuple((name, _restored(value, account.keys.keys)) for name, value in rejected.headers)
    delivery = Delivery(rejected.body, headers)
    message = verified_message(account, about, rejected.kind, delivery, rejected.received_at)
    message.headers = rejected.headers  # digests already, where they have to be
    return message


def _reason(rejected: RejectedDelivery, again: DeliveryRejected) -> str:
    """Return why it is still not authentic; for a kept digest, the first verdict."""
    return rejected.reason if any(name == "authorization" for name, _ in rejected.headers) else again.reason


def _restored(value: str, keys: tuple[Key, ...]) -> str:
    """Return a kept header as received: a digest stands for its credential."""
    for bearer in _bearers(keys):
        if value == f"sha256={sha256(bearer.encode('latin-1')).hexdigest()}":
            return bearer
    return value


def _bearers(keys: tuple[Key, ...]) -> Iterator[str]:
    return (f"Bearer {key.secret.decode('latin-1')}" for key in keys)
