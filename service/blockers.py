"""Blockers of a payment: what has not happened, why, and the remedy. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from service.text import shown, times
from statemachine.phases import MOVING_PHASES, WITHHOLDING, Phase, Review
from storage.rate_limits import Breaker
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage, Payment, PaymentPoll
from storage.types import InboxStatus, OutboxStatus


@dataclass(frozen=True, slots=True)
class Remedy:
    """Meaning of a review, and what to do about it."""

    meaning: str
    do: str


REMEDIES: Final[dict[Review, Remedy]] = {
    Review.AMOUNT_MISMATCH: Remedy(
        "the provider states another amount than was asked for, and what was not handed over before is withheld",
        "Compare with the provider's dashboard. Where the goods may go out, resolve with the payment's true state: "
        "what was withheld is then owed. Otherwise refund at the provider, and resolve with what it became.",
    ),
    Review.CURRENCY_MISMATCH: Remedy(
        "the provider states another currency than was asked for, and what was not handed over before is withheld",
        "Compare with the provider's dashboard. Where the goods may go out, resolve with the payment's true state: "
        "what was withheld is then owed. Otherwise refund at the provider, and resolve with what it became.",
    ),
    Review.AMOUNT_UNKNOWN: Remedy(
        "the provider says that money is there, and not how much: no amount or currency, or zero or less; what was not "
        "handed over before is withheld",
        "The provider is asked, and an answer with the amount ends the review. Otherwise compare with the provider's "
        "dashboard, and resolve with the payment's true state: what was withheld is then owed.",
    ),
    Review.REFERENCE_TAKEN: Remedy(
        "another payment had the same reference before this one, so an order may be paid twice, or with another's "
        "money; what was not handed over before is withheld",
        "Look at both payments. Where the goods may go out for this one, resolve with its true state: what was "
        "withheld is then owed. Otherwise refund at the provider, and resolve with what it became.",
    ),
    Review.PAID_TWICE: Remedy(
        "the payer tried more than once and two attempts were paid; goods were handed over for one of them",
        "Look at the payment's other names. Refund one attempt at the provider, and resolve with the payment's state.",
    ),
    Review.WRONG_ENVIRONMENT: Remedy(
        "the provider says that this is test money and the account is live, or the other way round; everything is "
        "withheld",
        "Correct the account's `environment`, or the URL that is registered at the provider. Resolve with the "
        "payment's true state where its effects may go out all the same.",
    ),
    Review.CONFLICT: Remedy(
        "what was said of it has no legal order, or money came to a payment that had ended",
        "Find out whether the money is there, and resolve with the true state.",
    ),
    Review.LATE_MOVE: Remedy(
        "the payment had ended and went on, such as paid after it expired, or failed after it was settled; what was "
        "not handed over before is withheld",
        "See whether the order still stands. Where the goods may go out, resolve with the payment's true state: what "
        "was withheld is then owed. Otherwise refund at the provider, and resolve with what it became.",
    ),
    Review.UNKNOWN_STATUS: Remedy(
        "the provider uses a word that its lifecycle here does not have",
        "Read the provider's news; add the state, upgrade, and replay the parked messages. Resolve with the state that "
        "the word means if that cannot wait.",
    ),
    Review.GAVE_UP: Remedy(
        "nothing has changed for as long as the settings allow, and asking has ended",
        "Ask now; resolve when the provider cannot tell.",
    ),
    Review.CREATE_UNKNOWN: Remedy(
        "the create call had no answer, or the provider's id belongs to another payment: there may be a payment at the "
        "provider",
        "Look for the reference in the provider's dashboard. If it is there, track it and then resolve; else resolve "
        "with not_created.",
    ),
    Review.OUTCOME_UNKNOWN: Remedy(
        "a capture or refund call had no answer that could be read: the money may have moved",
        "Repeat the capture or refund with the same key: the provider does it once. Or look in the provider's "
        "dashboard, and resolve with the payment's true state; then the call counts as settled.",
    ),
}


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that has not happened, and why."""

    text: str
    tone: Literal["bad", "warn", "quiet"]
    about: str | None = None  #: id of the message or effect that it is about, else of the payment as a whole


def find_blockers(
    payment: Payment,
    poll: PaymentPoll,
    owed: Sequence[OutboxMessage],
    attempts: Sequence[DeliveryAttempt],
    waiting: Sequence[InboxMessage],
    breaker: Breaker,
    now: datetime,
    *,
    is_terminal: bool,
    pause: timedelta = timedelta(0),
) -> list[Blocker]:
    """List everything that has not happened, the worst first.

    `attempts` are of what is owed, `waiting` the payment's messages that are not decided, `pause` is for how long the
    provider wants no question.
    """
    found = [
        *_withheld(payment, owed),
        *_undelivered(owed, attempts, now),
        *_unasked(payment, poll, breaker, now, pause, is_terminal=is_terminal),
        *_undecided(waiting),
    ]
    return sorted(found, key=lambda each: ("bad", "warn", "quiet").index(each.tone))


def _withheld(payment: Payment, owed: Sequence[OutboxMessage]) -> Iterator[Blocker]:
    """Yield withheld fulfilment, where nothing was handed over before the doubt."""
    is_owed = any(message.effect.endswith(f".{Phase.PAID.value}") for message in owed)
    if payment.review in WITHHOLDING and not is_owed:
        yield Blocker(f"no fulfilment: {payment.review_note}", "warn")


def _undelivered(
    owed: Sequence[OutboxMessage], attempts: Sequence[DeliveryAttempt], now: datetime
) -> Iterator[Blocker]:
    tries: dict[str, list[DeliveryAttempt]] = {}
    for attempt in attempts:
        tries.setdefault(attempt.outbox_id, []).append(attempt)
    held: dict[str, OutboxMessage] = {}
    for message in owed:
        what = f"no {message.effect} at {message.sink}"
        if message.status == OutboxStatus.DEAD:
            why = _failing(message.sink, tries.get(message.id, []), message)
            yield Blocker(f"{what}: {why}, and was given up; redrive it when the sink is mended", "bad", message.id)
        elif message.status == OutboxStatus.PENDING:
            first = held.setdefault(message.sink, message)
            if first is not message:
                yield Blocker(f"{what} yet: it goes out after {first.effect}", "quiet", message.id)
            elif message.attempts:
                at = "now" if message.next_attempt_at <= now else f"at {shown(message.next_attempt_at)}"
                why = _failing(message.sink, tries.get(message.id, []), message)
                yield Blocker(f"{what} yet: {why}, next attempt {at}", "warn", message.id)
            else:
                yield Blocker(f"{what} yet: the first attempt is due", "quiet", message.id)


def _failing(sink: str, tries: Sequence[DeliveryAttempt], message: OutboxMessage) -> str:
    """Say how a sink has failed repeatedly, or without attempts the last error."""
    if not tries:
        return f"sink {sink} has failed {times(message.attempts)}: {message.last_error}"
    last, count = tries[-1], 0
    for attempt in reversed(tries):
        if attempt.outcome == "delivered" or attempt.http_status != last.http_status:
            break
        count += 1
    if last.http_status is not None:
        return f"sink {sink} has answered {last.http_status} {times(count)}"
    return f"sink {sink} has not answered {times(count)} ({last.error})"


def _unasked(
    payment: Payment, poll: PaymentPoll, breaker: Breaker, now: datetime, pause: timedelta, *, is_terminal: bool
) -> Iterator[Blocker]:
    if is_terminal:
        return
    if payment.provider_ref is None:
        yield Blocker("not asked: the provider has not named the payment yet", "quiet")
        return
    if poll.next_poll_at is None:
        if payment.phase in MOVING_PHASES:
            yield Blocker("not asked: asking has ended without a last word; ask now, or resolve", "warn")
        return
    if breaker.broken_at is not None:
        until = f" until {shown(breaker.probe_at)}" if breaker.probe_at is not None and breaker.probe_at > now else ""
        away = f"the provider has not answered {times(breaker.failures)}"
        yield Blocker(f"not asked: the account's breaker is open{until}, since {away}", "warn")
    elif pause:
        yield Blocker(f"not asked: the provider wants no question until {shown(now + pause)}", "quiet")
    if poll.poll_error is not None:
        failures = f" ({times(poll.poll_failures)} in a row)" if poll.poll_failures > 1 else ""
        yield Blocker(f"no answer to the last question{failures}: {poll.poll_error}", "warn")


def _undecided(waiting: Sequence[InboxMessage]) -> Iterator[Blocker]:
    for message in waiting:
        if message.status == InboxStatus.PENDING:
            why = f", the last try failed: {message.last_error}" if message.last_error else ""
            yield Blocker(f"not decided: a {message.source} of {shown(message.received_at)}{why}", "quiet", message.id)
        elif message.status == InboxStatus.DEAD:
            words = (
                f"not decided: a {message.source} of {shown(message.received_at)} was given up: {message.last_error}"
            )
            yield Blocker(f"{words}; replay it when the fault is mended", "bad", message.id)
        elif message.status == InboxStatus.PARKED:
            words = f"not applied: a {message.source} of {shown(message.received_at)} is parked: {message.reason}"
            yield Blocker(words, "warn", message.id)
