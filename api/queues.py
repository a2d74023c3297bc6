"""Inbox messages, outbox messages and rejected deliveries."""

from typing import Annotated, Final, Literal

from fastapi import Query, Response
from pydantic import Field

from api.caller import ApiCaller, BodiesCaller, OperateCaller, PathId, ReadCaller
from api.idempotency import Repeatable
from api.payments import page_place
from api.responses import OctetStream, Responses, missing
from api.routing import api_router, refuse_get
from api.schemas import (
    Listing,
    MessageAnswer,
    MessagesQuery,
    OwedAnswer,
    OwedQuery,
    OwedWithAttempts,
    ReasonBody,
    RecordId,
    RedriveBody,
    RedriveOneBody,
    RejectedAnswer,
    RejectedQuery,
    Shape,
    effect_answer,
    effect_with_attempts,
    listing,
    message_answer,
    rejected_answer,
)
from service.permissions import Permission
from storage import inbox, outbox, search
from storage.database import Unit
from storage.errors import EffectOvertaken, NotFound
from storage.search import PageCursor, RowFilter, RowPage
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage
from storage.types import OutboxStatus

inbox_router = api_router("Inbox")
outbox_router = api_router("Outbox")
rejected_router = api_router("Rejected deliveries")


_NO_ACCOUNT: Final = missing("no such account")
_NO_MESSAGE: Final = missing("no such inbox message, or its account is not configured any more")
_NO_EFFECT: Final = missing("no such outbox message, or its account is not configured any more")
_NOT_DEAD: Final = missing("no such dead outbox message, or its account is not configured any more")
_NO_REJECTED: Final = missing("no such rejected delivery, or its account is not configured any more")
_NOT_REPLAYED: Final[Responses] = {
    **_NO_MESSAGE,
    422: {"description": "a statement of a person or of our poller is not replayed"},
}
_OVERTAKEN: Final[Responses] = {
    **_NOT_DEAD,
    409: {"description": "the sink has had a later effect of the payment"},
}

#: An id before all others.
_FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"


class Redriven(Shape):
    """Outbox messages that were made due again."""

    object: Literal["redriven"] = "redriven"
    redriven: int
    has_more: bool = Field(description="whether dead ones that fit are left")
    data: list[RecordId] = Field(description="their ids")
    overtaken: list[RecordId] = Field(
        description="ids of those that stay dead, since their sinks have had later effects of their payments"
    )


@inbox_router.get("/inbox", operation_id="list_inbox", responses=_NO_ACCOUNT)
async def list_inbox(caller: ReadCaller, query: Annotated[MessagesQuery, Query()]) -> Listing[MessageAnswer]:
    """List inbox messages, newest first, without their bytes."""
    among = _filters(caller, query.account, status=query.status, source=query.source, payment_id=query.payment)
    page = await caller.read(lambda unit: search.messages(unit, RowFilter(among=among), page_place(query)))
    items = [message_answer(row) for row in page.rows]
    return Listing[MessageAnswer](**listing(items, page, is_backwards=query.is_backwards))


@inbox_router.get("/inbox/{id}", operation_id="get_inbox_message", responses=_NO_MESSAGE)
async def get_inbox_message(caller: ReadCaller, message_id: PathId) -> MessageAnswer:
    """Show an inbox message and what was decided about it."""
    return message_answer(await _message(caller, message_id))


@inbox_router.get("/inbox/{id}/body", operation_id="get_inbox_body", response_class=OctetStream, responses=_NO_MESSAGE)
async def get_inbox_body(caller: BodiesCaller, message_id: PathId) -> OctetStream:
    """Get the exact bytes of an inbox message.

    They may hold personal data, and are empty once retention took them.
    """
    found = await _message(caller, message_id)
    headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff", "x-body-digest": found.digest}
    return OctetStream(bytes(found.body), headers=headers)


@inbox_router.post(
    "/inbox/{id}/replay",
    operation_id="replay_inbox_message",
    response_model=MessageAnswer,
    responses=_NOT_REPLAYED,
)
async def replay_inbox_message(
    caller: OperateCaller, call: Repeatable, message_id: PathId, body: ReasonBody
) -> Response:
    """Apply an inbox message once more, by the program as it is now.

    History is only added to.
    What a person or our poller once said is not replayed.
    """

    async def replay() -> MessageAnswer:
        found = await _message(caller, message_id)
        replayed = await caller.commands.replay(found.id, reason=body.reason, by=caller.actor(body.by))
        return message_answer(replayed)

    return await call(replay, body)


@outbox_router.get("/outbox", operation_id="list_outbox", responses=_NO_ACCOUNT)
async def list_outbox(caller: ReadCaller, query: Annotated[OwedQuery, Query()]) -> Listing[OwedAnswer]:
    """List outbox messages, newest first, without the payloads."""
    among = _filters(
        caller, query.account, status=query.status, sink=query.sink, effect=query.effect, payment_id=query.payment
    )
    page = await caller.read(lambda unit: search.outbox_messages(unit, RowFilter(among=among), page_place(query)))
    items = [effect_answer(row) for row in page.rows]
    return Listing[OwedAnswer](**listing(items, page, is_backwards=query.is_backwards))


@outbox_router.post("/outbox/redrive", operation_id="redrive_outbox", response_model=Redriven, responses=_NO_ACCOUNT)
async def redrive_outbox(caller: OperateCaller, call: Repeatable, body: RedriveBody) -> Response:
    """Make dead effects due again, the oldest first.

    A sink, an account or an effect may be named.

    Those that their sinks would get after later effects of their payments stay dead, unless `overtaken` says otherwise.
    While `has_more` is true, call again for the rest.
    """
    return await call(lambda: _redrive(caller, body), body)


async def _redrive(caller: ApiCaller, body: RedriveBody) -> Redriven:
    among = _filters(caller, body.account, status=OutboxStatus.DEAD, sink=body.sink, effect=body.effect)
    redriven, overtaken, after, has_more = list[str](), list[str](), _FIRST_ID, True
    while has_more and len(redriven) < body.limit:
        place = PageCursor(body.limit - len(redriven), before=after)  # what was owed first is due first

        def read(unit: Unit, place: PageCursor = place) -> RowPage[OutboxMessage]:
            return search.outbox_messages(unit, RowFilter(among=among), place)

        page = await caller.read(read)
        for owed in reversed(page.rows):
            try:
                done = await caller.commands.redrive(
                    owed.id, reason=body.reason, by=caller.actor(body.by), overtaken=body.overtaken
                )
                redriven.append(done.id)
            except NotFound:
                continue  # another caller redrove it meanwhile
            except EffectOvertaken:
                overtaken.append(owed.id)
        has_more = page.has_more
        after = page.rows[0].id if page.rows else after
    return Redriven(redriven=len(redriven), has_more=has_more, data=redriven, overtaken=overtaken)


refuse_get(outbox_router, "/outbox/redrive")


@outbox_router.get("/outbox/{id}", operation_id="get_outbox_message", responses=_NO_EFFECT)
async def get_outbox_message(caller: ReadCaller, outbox_id: PathId) -> OwedWithAttempts:
    """Show an effect that is owed to a sink, with every try to deliver it."""

    def read(unit: Unit) -> tuple[OutboxMessage, list[DeliveryAttempt]]:
        found = outbox.get(unit, outbox_id)
        return found, outbox.attempts_of(unit, [found.id])

    found, attempts = await caller.read(read)
    caller.require_account(found.account)
    return effect_with_attempts(found, attempts)


@outbox_router.post(
    "/outbox/{id}/redrive",
    operation_id="redrive_outbox_message",
    response_model=OwedAnswer,
    responses=_OVERTAKEN,
)
async def redrive_outbox_message(
    caller: OperateCaller, call: Repeatable, outbox_id: PathId, body: RedriveOneBody
) -> Response:
    """Make a dead effect due again; the dispatcher delivers it.

    One that its sink would get after a later effect of the same payment is refused, unless `overtaken` says otherwise.
    """

    async def redrive() -> OwedAnswer:
        found = await caller.read(lambda unit: outbox.get(unit, outbox_id))
        caller.require_account(found.account)
        redriven = await caller.commands.redrive(
            found.id, reason=body.reason, by=caller.actor(body.by), overtaken=body.overtaken
        )
        return effect_answer(redriven)

    return await call(redrive, body)


@rejected_router.get("/rejected", operation_id="list_rejected", responses=_NO_ACCOUNT)
async def list_rejected(caller: ReadCaller, query: Annotated[RejectedQuery, Query()]) -> Listing[RejectedAnswer]:
    """List rejected deliveries, newest first, without bytes and headers."""
    among = _filters(caller, query.account, reason=query.reason)
    page = await caller.read(lambda unit: search.rejected(unit, RowFilter(among=among), page_place(query)))
    shows_client = caller.has(Permission.PERSONAL)
    items = [rejected_answer(row, shows_client=shows_client) for row in page.rows]
    return Listing[RejectedAnswer](**listing(items, page, is_backwards=query.is_backwards))


@rejected_router.get("/rejected/{id}", operation_id="get_rejected", responses=_NO_REJECTED)
async def get_rejected(caller: ReadCaller, rejected_id: PathId) -> RejectedAnswer:
    """Show a rejected delivery."""

    def read(unit: Unit) -> RejectedAnswer:
        page = search.rejected(unit, RowFilter({"id": rejected_id}), PageCursor(1))
        if not page.rows:
            raise NotFound(f"no rejected delivery {rejected_id}", param="id")
        caller.require_account(page.rows[0].account)
        return rejected_answer(page.rows[0], shows_client=caller.has(Permission.PERSONAL))

    return await caller.read(read)


async def _message(caller: ApiCaller, message_id: str) -> InboxMessage:
    found = await caller.read(lambda unit: inbox.get(unit, message_id))
    caller.require_account(found.account)
    return found


def _filters(caller: ApiCaller, account: str | None, **columns: str | None) -> dict[str, list[str]]:
    """Return the filters of columns; a value of None filters nothing."""
    return {
        "account": caller.accounts(account),
        **{name: [str(value)] for name, value in columns.items() if value is not None},
    }
