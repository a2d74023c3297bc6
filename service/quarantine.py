"""Verifies quarantined deliveries again; each that is authentic now is recorded and removed in one commit."""

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import structlog

from providers.contract import Delivery
from providers.errors import DeliveryRejected
from providers.signing import Key
from receipted.errors import StillRejected
from receipted.wiring import Service
from receiver.intake import ReceivingAccount, verified_message
from receiver.returns import About
from storage import inbox, operator_actions, quarantine
from storage.errors import NotFound
from storage.tables import InboxMessage, RejectedDelivery

log = structlog.get_logger()

_PAGE: Final = 200


@dataclass(slots=True)
class Redeemed:
    """What became of an account's quarantine."""

    redeemed: list[str] = field(default_factory=list)  #: ids of inbox messages
    duplicates: int = 0  #: of those, how many were in the inbox already
    rejected: Counter[str] = field(default_factory=Counter)  #: by reason: still not authentic


def redeem_all(service: Service, account: str, *, by: str, reason: str, only: Container[str] | None = None) -> Redeemed:
    """Everything in the account's quarantine that verifies as of when it was received is in the inbox afterwards.

    With `only`, deliveries of other ids stay where they are.
    A worker applies it from there. A crash in between leaves each delivery in exactly one of the two places.
    """
    receiving = service.receiving_accounts()[account]
    result = Redeemed()
    after = ""
    while page := _page(service, account, after):
        for rejected in page:
            if only is not None and rejected.id not in only:
                continue
            try:
                message = _verified(receiving, rejected)
            except DeliveryRejected as again:
                result.rejected[_told(rejected, again)] += 1
                continue
            _record(service, rejected, message, result, by=by, reason=reason)
        after = page[-1].id
    log.info("quarantine.redeemed", account=account, redeemed=len(result.redeemed), rejected=result.rejected.total())
    return result


def redeem_one(service: Service, rejected_id: str, *, by: str, reason: str) -> str:
    """The id of the inbox message that the rejected delivery is now.

    Raises NotFound, also where its account is not configured any more, and StillRejected where it is not authentic
    with the keys of now. As with all of them, it is in exactly one of the two places whatever happens.
    """
    with service.database.read() as unit:
        rejected = quarantine.get(unit, rejected_id)
    receiving = service.receiving_accounts().get(rejected.account)
    if receiving is None:
        raise NotFound("its account is not configured any more", param="account", code="unknown_account")
    try:
        message = _verified(receiving, rejected)
    except DeliveryRejected as again:
        words = f"it is still not authentic ({_told(rejected, again).replace('_', ' ')}), and stays in quarantine"
        raise StillRejected(words) from None
    result = Redeemed()
    _record(service, rejected, message, result, by=by, reason=reason)
    log.info("quarantine.redeemed", account=rejected.account, redeemed=1, rejected=0)
    return result.redeemed[0]


def _page(service: Service, account: str, after: str) -> list[RejectedDelivery]:
    with service.database.read() as unit:
        return quarantine.find(unit, account, after=after, limit=_PAGE)


def _verified(account: ReceivingAccount, rejected: RejectedDelivery) -> InboxMessage:
    about = About(account.name, rejected.kind or "", rejected.about) if rejected.about else None
    headers = tuple((name, _restored(value, account.keys.keys)) for name, value in rejected.headers)
    delivery = Delivery(rejected.body, headers)
    message = verified_message(account, about, rejected.kind, delivery, rejected.received_at)
    message.headers = rejected.headers  # digests already, where they have to be
    return message


def _told(rejected: RejectedDelivery, again: DeliveryRejected) -> str:
    """Why it is still not authentic; of a credential that is kept as a digest, only the first verdict says that."""
    return rejected.reason if any(name == "authorization" for name, _ in rejected.headers) else again.reason


def _restored(value: str, keys: tuple[Key, ...]) -> str:
    """A kept header as it was received: a credential's digest stands for the credential that has that digest."""
    for bearer in _bearers(keys):
        if value == f"sha256={sha256(bearer.encode('latin-1')).hexdigest()}":
            return bearer
    return value


def _bearers(keys: tuple[Key, ...]) -> Iterator[str]:
    return (f"Bearer {key.secret.decode('latin-1')}" for key in keys)


def _record(
    service: Service, rejected: RejectedDelivery, message: InboxMessage, result: Redeemed, *, by: str, reason: str
) -> None:
    with service.database.write() as unit:
        recorded = inbox.record(unit, [message])[0]
        quarantine.remove(unit, rejected.id)
        operator_actions.note(
            unit,
            account=message.account,
            at=service.clock(),
            actor=by,
            action="redeem",
            subject=recorded.id,
            reason=reason.strip(),
        )
    result.redeemed.append(recorded.id)
    result.duplicates += recorded.is_duplicate
