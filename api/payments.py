"""Payments: create, track, list, show, refresh, cancel, capture, refund, resolve."""

from typing import Annotated, Any, Final, Literal

from fastapi import Query, Response

from api.caller import ApiCaller, OperateCaller, PathId, ReadCaller, WriteCaller
from api.idempotency import KeyedCall, Repeatable
from api.responses import FROM_PROVIDER, missing
from api.routing import api_router, refuse_get
from api.schemas import (
    CreateBody,
    Listing,
    Moment,
    MoneyBody,
    PaymentAnswer,
    PaymentsQuery,
    ResolveBody,
    Shape,
    Timeline,
    TrackBody,
    TransitionAnswer,
    action_answer,
    effect_with_attempts,
    listing,
    message_answer,
    payment_answer,
    transition_answer,
)
from api.validation import PageQuery
from service import timeline as service_timeline
from service.text import shown
from storage import payment_history, payment_polls, search
from storage import transitions as storage_transitions
from storage.database import Unit
from storage.search import PageCursor, RowFilter, RowPage
from storage.tables import Payment

router = api_router("Payments")

_NO_ACCOUNT: Final = missing("no such account")
_NO_PAYMENT: Final = missing("no such payment, or its account is not configured any more")


class Transitions(Shape):
    """Every transition of one payment, the first first."""

    object: Literal["list"] = "list"
    data: list[TransitionAnswer]
    has_more: Literal[False] = False


@router.post("/payments", operation_id="create_payment", response_model=PaymentAnswer, responses=FROM_PROVIDER)
async def create_payment(caller: WriteCaller, call: KeyedCall, body: CreateBody) -> Response:
    """Create a payment at a provider.

    The wish is recorded before the provider is called, and its answer after.
    The same `reference` gives the same payment, however often and with whichever Idempotency-Key it is sent.
    Where the outcome is not known (502, such as `answer_unclear`, 503, or 409 `create_outcome_unknown`), nothing is
    lost: call again, with the same Idempotency-Key or another; such an answer is not kept under it.
    """

    async def create() -> PaymentAnswer:
        caller.account(body.account)
        made = await caller.commands.create(
            body.account,
            amount_minor=body.amount_minor,
            currency=body.currency.upper(),
            reference=body.reference,
            kind=body.kind,
            return_url=body.return_url,
            extra=body.extra,
            description=body.description,
            metadata=body.metadata,
        )
        return await _answer(caller, made)

    return await call(create, body)


@router.post("/payments/track", operation_id="track_payment", response_model=PaymentAnswer, responses=FROM_PROVIDER)
async def track_payment(caller: WriteCaller, call: Repeatable, body: TrackBody) -> Response:
    """Keep track of a payment that was created elsewhere.

    The provider is asked, and its answer is what is known from then on.
    """

    async def track() -> PaymentAnswer:
        caller.account(body.account)
        tracked = await caller.commands.track(
            body.account, body.provider_ref, body.kind, description=body.description, metadata=body.metadata
        )
        return await _answer(caller, tracked)

    return await call(track, body)


refuse_get(router, "/payments/track")


@router.get("/payments", operation_id="list_payments", responses=_NO_ACCOUNT)
async def list_payments(caller: ReadCaller, query: Annotated[PaymentsQuery, Query()]) -> Listing[PaymentAnswer]:
    """List payments, newest first.

    Pages stay put while payments are added: go on with `next` as `after`.
    """
    wanted = _filters(caller, query)

    def read(unit: Unit) -> tuple[RowPage[Payment], list[PaymentAnswer]]:
        page = search.payments(unit, wanted, page_place(query))
        polls = payment_polls.of(unit, page.rows)
        return page, [payment_answer(each, polls[each.id], caller.key.environment) for each in page.rows]

    page, items = await caller.read(read)
    return Listing[PaymentAnswer](**listing(items, page, is_backwards=query.is_backwards))


@router.get("/payments/{id}", operation_id="get_payment", responses=_NO_PAYMENT)
async def get_payment(caller: ReadCaller, payment_id: PathId) -> PaymentAnswer:
    """Show a payment."""
    return await _answer(caller, await caller.payment(payment_id))


@router.get("/payments/{id}/transitions", operation_id="list_transitions", responses=_NO_PAYMENT)
async def list_transitions(caller: ReadCaller, payment_id: PathId) -> Transitions:
    """List a payment's transitions, the first first."""
    payment = await caller.payment(payment_id)
    kept = await caller.read(lambda unit: storage_transitions.of_payment(unit, payment.id))
    return Transitions(data=[transition_answer(link) for link in kept])


@router.get("/payments/{id}/timeline", operation_id="get_timeline", responses=_NO_PAYMENT)
async def get_timeline(caller: ReadCaller, payment_id: PathId) -> Timeline:
    """Show the timeline of a payment.

    It says what came, from where, what was decided and why, and what was sent.
    """
    payment = await caller.payment(payment_id)

    def read(unit: Unit) -> Timeline:
        found = payment_history.read(unit, payment.id)
        return Timeline(
            payment=payment_answer(found.payment, found.poll, caller.key.environment),
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
            messages=[message_answer(message) for message in found.messages],
            transitions=[transition_answer(link) for link in found.transitions],
            outbox=[
                effect_with_attempts(owed, [tried for tried in found.tries if tried.outbox_id == owed.id])
                for owed in found.owed
            ],
            actions=[action_answer(done) for done in found.actions],
        )

    return await caller.read(read)


@router.post(
    "/payments/{id}/refresh", operation_id="refresh_payment", response_model=PaymentAnswer, responses=FROM_PROVIDER
)
async def refresh_payment(caller: WriteCaller, call: Repeatable, payment_id: PathId) -> Response:
    """Ask the provider about a payment now.

    The answer is applied before this one is given.
    """

    async def refresh() -> PaymentAnswer:
        payment = await caller.payment(payment_id)
        return await _answer(caller, await caller.commands.refresh(payment.id))

    return await call(refresh)


@router.post(
    "/payments/{id}/cancel", operation_id="cancel_payment", response_model=PaymentAnswer, responses=FROM_PROVIDER
)
async def cancel_payment(caller: WriteCaller, call: Repeatable, payment_id: PathId) -> Response:
    """Cancel a payment at its provider.

    Look at the `phase` of what comes back: only cancelled, expired and failed say that no money will come.
    It may have been paid first.
    A repeat is harmless.
    """

    async def cancel() -> PaymentAnswer:
        payment = await caller.payment(payment_id)
        return await _answer(caller, await caller.commands.cancel(payment.id))

    return await call(cancel)


@router.post(
    "/payments/{id}/capture", operation_id="capture_payment", response_model=PaymentAnswer, responses=FROM_PROVIDER
)
async def capture_payment(caller: WriteCaller, call: KeyedCall, payment_id: PathId, body: MoneyBody) -> Response:
    """Capture an authorised payment, all or part of it.

    As with a refund, the wish is recorded before it is sent, and done once for each Idempotency-Key.
    More than is authorised and not captured yet is refused before anything is sent (409 `amount_exceeded`).
    """

    async def capture() -> PaymentAnswer:
        payment = await caller.payment(payment_id)
        moved = await caller.commands.capture(payment.id, key=call.required_key, amount_minor=body.amount_minor)
        return await _answer(caller, moved)

    return await call(capture, body)


@router.post(
    "/payments/{id}/refund", operation_id="refund_payment", response_model=PaymentAnswer, responses=FROM_PROVIDER
)
async def refund_payment(caller: WriteCaller, call: KeyedCall, payment_id: PathId, body: MoneyBody) -> Response:
    """Refund a paid payment, all or part of it.

    The wish is recorded before the provider is called, and its answer after.
    Look at `refunded_minor` and `parts` of what comes back: a refund may be pending at the provider for days.
    More than remains is refused before anything is sent (409 `amount_exceeded`).
    Where the outcome is not known (503 `money_outcome_unknown`), the payment needs review, and the way on is to call
    again with the same Idempotency-Key: the provider does it once. Another key is refused until then
    (409 `money_in_doubt`).
    """

    async def refund() -> PaymentAnswer:
        payment = await caller.payment(payment_id)
        moved = await caller.commands.refund(payment.id, key=call.required_key, amount_minor=body.amount_minor)
        return await _answer(caller, moved)

    return await call(refund, body)


@router.post(
    "/payments/{id}/resolve", operation_id="resolve_payment", response_model=PaymentAnswer, responses=FROM_PROVIDER
)
async def resolve_payment(caller: OperateCaller, call: Repeatable, payment_id: PathId, body: ResolveBody) -> Response:
    """Say which state is true, with a reason; any review is closed."""

    async def resolve() -> PaymentAnswer:
        payment = await caller.payment(payment_id)
        resolved = await caller.commands.resolve(
            payment.id, state=body.state, reason=body.reason, by=caller.actor(body.by)
        )
        return await _answer(caller, resolved)

    return await call(resolve, body)


def page_place(query: PageQuery) -> PageCursor:
    """Return the place in storage where the page begins."""
    return PageCursor(query.limit, query.after, query.before)


async def _answer(caller: ApiCaller, payment: Payment) -> PaymentAnswer:
    polls = await caller.read(lambda unit: payment_polls.of(unit, [payment]))
    return payment_answer(payment, polls[payment.id], caller.key.environment)


def _filters(caller: ApiCaller, query: PaymentsQuery) -> RowFilter:
    accounts = caller.accounts(query.account)
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
        among["kind"] = sorted({kind for name in accounts for kind in caller.deps.accounts[name].lifecycles})
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
