"""Things that tests are about, with sensible defaults that keywords override."""

from datetime import datetime
from typing import Any

from providers.banked.options import BankedOptions
from providers.banked.provider import Banked
from providers.catalogue import AlternativePayments, Payfield, StableGenius
from providers.contract import Capabilities, Capability, Provider
from statemachine import own_statements
from statemachine.lifecycle import Lifecycle, State
from statemachine.observation import Observation, PaymentView
from statemachine.phases import Phase, Source
from storage import inbox
from storage.ids import new_id
from storage.tables import InboxMessage, Payment, PaymentPoll
from tests.support.clock import START

PROVIDERS: dict[str, Provider] = {
    "alternative_payments": AlternativePayments.with_options(),
    "stable_genius": StableGenius.with_options(),
    "payfield": Payfield.with_options(default_kind="payin"),
    "banked": Banked(BankedOptions()),
}


class Unaskable(StableGenius):
    """A made-up provider with Stable Genius's events, that creates and cancels, and has no call that asks."""

    def capabilities(self) -> Capabilities:
        return dict.fromkeys((Capability.CREATE, Capability.CANCEL), frozenset(self.lifecycles))


LIFECYCLES: list[Lifecycle] = [life for p in PROVIDERS.values() for life in p.lifecycles.values()]


def a_lifecycle(**changes: Any) -> Lifecycle:
    """open -> (paid -> settled | failed), unless told otherwise."""
    defaults: dict[str, Any] = {
        "name": "test.payment",
        "initial": ("new",),
        "states": (
            State("new", Phase.OPEN),
            State("paid", Phase.PAID),
            State("settled", Phase.SETTLED, terminal=True),
            State("failed", Phase.FAILED, terminal=True),
        ),
        "moves": {"new": ("paid", "failed"), "paid": ("settled",)},
    }
    return Lifecycle(**(defaults | changes))


def a_view(**changes: Any) -> PaymentView:
    """A payment as the rules see it, of 4.50 US dollars and without a state."""
    return PaymentView(**({"amount_minor": 450, "currency": "USD"} | changes))


def an_observation(status: str | None = None, **changes: Any) -> Observation:
    """What a webhook says: a status and nothing else."""
    return Observation(**({"source": Source.WEBHOOK, "status": status} | changes))


def a_message(**changes: Any) -> InboxMessage:
    """A webhook's message with an identity of its own, sealed."""
    return inbox.new_message(
        **(
            {
                "account": "acme",
                "source": "webhook",
                "delivery_key": new_id(),
                "body": b"{}",
                "received_at": START,
            }
            | changes
        )
    )


def our_message(
    statement: own_statements.Statement, *, about: str | None, at: datetime = START, **kw: Any
) -> InboxMessage:
    """The message of a statement of our own."""
    source = {
        own_statements.CreateWanted: Source.MERCHANT,
        own_statements.PaymentDescribed: Source.MERCHANT,
        own_statements.CallFailed: Source.CREATE,
        own_statements.Resolution: Source.OPERATOR,
        own_statements.GaveUp: Source.POLLER,
        own_statements.AccountAlarm: Source.POLLER,
    }[type(statement)]
    return a_message(
        **(
            {
                "source": source.value,
                "body": own_statements.encode(statement),
                "headers": (("content-type", own_statements.CONTENT_TYPE),),
                "received_at": at,
                "about": about,
            }
            | kw
        )
    )


def a_payment(**changes: Any) -> Payment:
    """A kept payment without a state, known to the provider."""
    now = changes.get("created_at", START)
    return Payment(
        **(
            {
                "id": new_id(),
                "account": "acme",
                "kind": "payment_intent",
                "provider_ref": f"pi_{new_id()[-12:]}",
                "phase": "open",
                "created_at": now,
                "changed_at": now,
            }
            | changes
        )
    )


def a_poll(payment: Payment, **changes: Any) -> PaymentPoll:
    """What belongs to the payment, which was heard of when it was made and is not asked about."""
    return PaymentPoll(
        **({"payment_id": payment.id, "account": payment.account, "heard_at": payment.created_at} | changes)
    )
