"""What an operator does about one payment, message, effect or rejected delivery; about many, console/tables/many.py."""

from typing import Final

from starlette.routing import BaseRoute, Route

from console.actions import Act, Done, acting
from console.page import Pages
from console.parts import Parts
from statemachine.phases import Phase
from storage import operator_actions, payments
from storage.tables import Payment
from storage.types import InboxStatus

#: What a payment must be for its cancelling to have been what was wished for.
_ENDED: Final = frozenset({Phase.CANCELLED.value, Phase.EXPIRED.value, Phase.FAILED.value})
_MONEY: Final = frozenset({Phase.PAID.value, Phase.SETTLED.value, Phase.REFUNDED.value})


def routes(parts: Parts, pages: Pages) -> list[BaseRoute]:
    """One route for each; all are POST."""
    return [
        Route("/console/payments/{id}/refresh", acting(parts, pages, refresh), methods=["POST"]),
        Route("/console/payments/{id}/cancel", acting(parts, pages, cancel, needs_reason=True), methods=["POST"]),
        Route("/console/payments/{id}/resolve", acting(parts, pages, resolve, needs_reason=True), methods=["POST"]),
        Route("/console/inbox/{id}/replay", acting(parts, pages, replay, needs_reason=True), methods=["POST"]),
        Route("/console/outbox/{id}/redrive", acting(parts, pages, redrive, needs_reason=True), methods=["POST"]),
        Route("/console/quarantine/{id}/redeem", acting(parts, pages, redeem, needs_reason=True), methods=["POST"]),
    ]


async def refresh(act: Act) -> Done:
    """The provider is asked now."""
    before = await _noted(act, "refresh", act.reason or "asked for in the console")
    after = await act.commands.refresh(before.id)
    if after.version != before.version:
        return Done(f"The provider was asked: the payment is {_state(after)} now.", to=_page(after.id))
    return Done(f"The provider was asked: the payment is {_state(after)}, as it was known.", to=_page(after.id))


async def cancel(act: Act) -> Done:
    """The provider is told to cancel, and what it says then is what is known."""
    before = await _noted(act, "cancel", act.reason)
    after = await act.commands.cancel(before.id)
    if after.phase in _ENDED:
        return Done(f"No money will come: the payment is {_state(after)}.", to=_page(after.id))
    if after.phase in _MONEY:
        return Done(f"It was paid first: the payment is {_state(after)}.", "warn", to=_page(after.id))
    return Done(f"It is not cancelled: the provider was asked, and it is {_state(after)}.", "warn", to=_page(after.id))


async def resolve(act: Act) -> Done:
    """A state is true since this person says so."""
    payment = await act.commands.resolve(act.path("id"), state=act.field("state"), reason=act.reason, by=act.by)
    if payment.review is not None:
        words = f"Your word is recorded, and the payment needs review again: {payment.review}."
        return Done(words, "warn", to=_page(payment.id))
    return Done(f"Your word is recorded: the payment is {_state(payment)}.", to=_page(payment.id))


async def replay(act: Act) -> Done:
    """The message is applied once more."""
    message = await act.commands.replay(act.path("id"), reason=act.reason, by=act.by)
    if message.status == InboxStatus.DECIDED.value:
        return Done(f"Applied once more: {message.decision}, {message.reason}.")
    return Done(f"Applied once more, and it is {message.status}: {message.reason or message.decision}.", "warn")


async def redrive(act: Act) -> Done:
    """The dead effect is due again."""
    overtaken = act.form.get("overtaken") == "1"
    owed = await act.commands.redrive(act.path("id"), reason=act.reason, by=act.by, overtaken=overtaken)
    return Done(f"{owed.effect} is due again and will be delivered to {owed.sink}.")


async def redeem(act: Act) -> Done:
    """The rejected delivery is verified again."""
    rejected_id, reason, by = act.path("id"), act.reason, act.by
    message_id = await act.parts.in_thread(lambda: act.parts.redeemer.redeem(rejected_id, reason=reason, by=by))
    return Done(f"It is authentic now, and in the inbox as {message_id}.", to="/console/tables/quarantine/list")


async def _noted(act: Act, action: str, reason: str) -> Payment:
    """The payment, after it is kept who asks for this and why; raises NotFound."""
    payment_id = act.path("id")
    found = await act.parts.read(lambda unit: payments.get(unit, payment_id))
    now = act.parts.clock()
    await act.parts.write(
        lambda unit: operator_actions.note(
            unit, account=found.account, at=now, actor=act.by, action=action, subject=found.id, reason=reason
        )
    )
    return found


def _state(payment: Payment) -> str:
    return payment.state or "in no state yet"


def _page(payment_id: str) -> str:
    return f"/console/payments/{payment_id}"
