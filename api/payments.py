"""Payments: created at a provider, tracked, listed, shown with their history, refreshed, cancelled, resolved."""

from typing import Any, Final, Literal

from api import answers, answers_queues
from api.answers import Listing, PaymentAnswer, Shape, TransitionAnswer
from api.answers_queues import Moment, Timeline
from api.operation import Call, Operation, Repeats
from api.payment_forms import CreateBody, PaymentsQuery, ResolveBody, TrackBody
from api.reading import Listed
from service import timeline as service_timeline
from service.permissions import Permission
from service.text import shown
from storage import payment_history, search
from storage import transitions as storage_transitions
from storage.database import Unit
from storage.search import PageCursor, RowFilter
from storage.tables import Payment


class Transitions(Shape):
    """Every transition of one payment, the first first."""

    object: Literal["list"] = "list"
    data: list[TransitionAnswer]
    has_more: Literal[False] = False


async def create(call: Call) -> PaymentAnswer:
    """Create a payment at a provider.

    The wish is recorded before the provider is called, and its answer after.
    The same `reference` gives the same payment, however often and with whichever Idempotency-Key it is sent.
    Where the outcome is not known (502, such as `answer_unclear`, 503, or 409 `create_outcome_unknown`), nothing is
    lost: call again, with the same Idempotency-Key or another; such an answer is not kept under it.
    """
    body: CreateBody = call.body
    call.account(body.account)
    made = await call.commands.create(
        body.account,
        amount_minor=body.amount_minor,
        currency=body.currency.upper(),
        reference=body.reference,
        kind=body.kind,
        return_url=body.return_url,
        extra=body.extra,
    )
    return told(call, made)


async def track(call: Call) -> PaymentAnswer:
    """Keep track of a payment that was created elsewhere.

    The provider is asked, and its answer is what is known from then on.
    """
    body: TrackBody = call.body
    call.account(body.account)
    return told(call, await call.commands.track(body.account, body.provider_ref, body.kind))


async def find(call: Call) -> Listing[PaymentAnswer]:
    """List payments, newest first.

    Pages stay put while payments are added: go on with `next` as `after`.
    """
    query: PaymentsQuery = call.query
    wanted = _wanted(call, query)
    page = await call.read(lambda unit: search.payments(unit, wanted, place_of(query)))
    made = [told(call, payment) for payment in page.rows]
    return Listing[PaymentAnswer](**answers.listing(made, page, is_backwards=query.is_backwards))


async def show(call: Call) -> PaymentAnswer:
    """Show a payment."""
    return told(call, await call.payment())


async def transitions(call: Call) -> Transitions:
    """List a payment's transitions, the first first."""
    payment = await call.payment()
    kept = await call.read(lambda unit: storage_transitions.of_payment(unit, payment.id))
    return Transitions(data=[answers.transition(link) for link in kept])


async def timeline(call: Call) -> Timeline:
    """Show what happened to a payment: what came, from where, what was decided and why, what was sent."""
    payment = await call.payment()

    def read(unit: Unit) -> Timeline:
        found = payment_history.read(unit, payment.id)
        return Timeline(
            payment=told(call, found.payment),
            entries=[
                Moment(
                    at=entry.at,
                    what=shown(entry.title),
                    details=[shown(line) for line in service_timeline.details(entry)],
                    of=entry.kind,
                )
                for entry in service_timeline.chronicle(found)
                if entry.kind != "rejected"
            ],
            messages=[answers_queues.message(message) for message in found.messages],
            transitions=[answers.transition(link) for link in found.transitions],
            outbox=[
                answers_queues.owed_with(owed, [tried for tried in found.tries if tried.outbox_id == owed.id])
                for owed in found.owed
            ],
            actions=[answers_queues.action(done) for done in found.actions],
        )

    return await call.read(read)


async def refresh(call: Call) -> PaymentAnswer:
    """Ask the provider about a payment now.

    The answer is applied before this one is given.
    """
    return told(call, await call.commands.refresh((await call.payment()).id))


async def cancel(call: Call) -> PaymentAnswer:
    """Cancel a payment at its provider.

    Look at the `phase` of what comes back: only cancelled, expired and failed say that no money will come.
    It may have been paid first.
    A repeat is harmless.
    """
    return told(call, await call.commands.cancel((await call.payment()).id))


async def resolve(call: Call) -> PaymentAnswer:
    """Say which state is true, with a reason; any review is closed."""
    body: ResolveBody = call.body
    payment = await call.payment()
    done = await call.commands.resolve(payment.id, state=body.state, reason=body.reason, by=call.actor)
    return told(call, done)


def told(call: Call, payment: Payment) -> PaymentAnswer:
    """The payment as this key sees it."""
    return answers.payment(payment, call.key.environment)


def place_of(query: Listed) -> PageCursor:
    """Where the page begins."""
    return PageCursor(query.limit, query.after, query.before)


def _wanted(call: Call, query: PaymentsQuery) -> RowFilter:
    accounts = call.accounts(query.account)
    among: dict[str, Any] = {"account": accounts}
    for name in ("kind", "state", "reference", "provider_ref"):
        if (value := getattr(query, name)) is not None:
            among[name] = [value]
    if query.phase is not None:
        among["phase"] = [query.phase.value]
    if query.currency is not None:
        among["currency"] = [query.currency.upper()]
    if ("reference" in among or "provider_ref" in among) and "kind" not in among:
        # The indexes begin with account and kind.
        among["kind"] = sorted({kind for name in accounts for kind in call.parts.accounts[name].lifecycles})
    ranges: tuple[tuple[str, Any, Any], ...] = (
        ("amount_minor", query.amount_from, None),
        ("created_at", query.created_from, query.created_before),
        ("changed_at", query.changed_from, query.changed_before),
    )
    below: dict[str, Any] = {name: end for name, _, end in ranges if end is not None}
    if query.amount_to is not None:
        below["amount_minor"] = query.amount_to + 1
    return RowFilter(
        among=among,
        at_least={name: start for name, start, _ in ranges if start is not None},
        below=below,
        present={} if query.in_review is None else {"review": query.in_review},
    )


_UNKNOWN: Final = {404: "no such payment, or its account is not configured any more"}

OPERATIONS: Final = (
    Operation(
        "POST",
        "/v1/payments",
        "create_payment",
        "Payments",
        Permission.WRITE,
        create,
        PaymentAnswer,
        body=CreateBody,
        repeats=Repeats.MUST,
        calls_provider=True,
    ),
    Operation(
        "POST",
        "/v1/payments/track",
        "track_payment",
        "Payments",
        Permission.WRITE,
        track,
        PaymentAnswer,
        body=TrackBody,
        repeats=Repeats.MAY,
        calls_provider=True,
    ),
    Operation(
        "GET",
        "/v1/payments",
        "list_payments",
        "Payments",
        Permission.READ,
        find,
        Listing[PaymentAnswer],
        query=PaymentsQuery,
        refusals={404: "no such account"},
    ),
    Operation(
        "GET", "/v1/payments/{id}", "get_payment", "Payments", Permission.READ, show, PaymentAnswer, refusals=_UNKNOWN
    ),
    Operation(
        "GET",
        "/v1/payments/{id}/transitions",
        "list_transitions",
        "Payments",
        Permission.READ,
        transitions,
        Transitions,
        refusals=_UNKNOWN,
    ),
    Operation(
        "GET",
        "/v1/payments/{id}/timeline",
        "get_timeline",
        "Payments",
        Permission.READ,
        timeline,
        Timeline,
        refusals=_UNKNOWN,
    ),
    Operation(
        "POST",
        "/v1/payments/{id}/refresh",
        "refresh_payment",
        "Payments",
        Permission.WRITE,
        refresh,
        PaymentAnswer,
        repeats=Repeats.MAY,
        calls_provider=True,
    ),
    Operation(
        "POST",
        "/v1/payments/{id}/cancel",
        "cancel_payment",
        "Payments",
        Permission.WRITE,
        cancel,
        PaymentAnswer,
        repeats=Repeats.MAY,
        calls_provider=True,
    ),
    Operation(
        "POST",
        "/v1/payments/{id}/resolve",
        "resolve_payment",
        "Payments",
        Permission.OPERATE,
        resolve,
        PaymentAnswer,
        body=ResolveBody,
        repeats=Repeats.MAY,
        calls_provider=True,
    ),
)
