"""The page of one payment: state, diagram, timeline, blockers and proof."""

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from console.access import Person
from console.deps import ConsoleDeps
from console.lifecycle_svg import DrawnTransition, LifecycleDrawing, draw_lifecycle
from console.live_updates import LiveUpdates
from console.pages import PageRenderer
from console.raw_content import MessageContent, message_content
from providers.contract import Capability, Scheme
from service import origins, timeline
from service.accounts import ConfiguredAccount
from service.blockers import REMEDIES, find_blockers
from service.money_calls import remaining_minor
from service.payments import checkout_url, other_names, parts_told, said_by
from service.permissions import Permission
from service.text import shown
from service.timeline import Kind, TimelineEntry, TimelineLine, Tone
from statemachine.lifecycle import NOT_CREATED, Lifecycle
from statemachine.machine import moves_of
from statemachine.money import amount_text
from statemachine.phases import Review, Source
from storage import inbox, payment_history, payments, rate_limits
from storage.changes import payment_marks
from storage.database import Unit
from storage.ids import new_id
from storage.payment_history import PaymentHistory
from storage.rate_limits import Breaker
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage, Payment, RejectedDelivery, Transition


@dataclass(frozen=True, slots=True)
class MessageBytes:
    """Contents of an entry's message, and its origin."""

    contents: MessageContent
    headers: Sequence[tuple[str, str]]
    digest: str | None
    origin: Sequence[origins.Fact]
    download: str | None  #: where all of its bytes are
    scrubbed_at: datetime | None = None
    is_withheld: bool = False  #: bytes and headers need a permission that the person has not


@dataclass(frozen=True, slots=True)
class PageEntry:
    """One entry of the timeline as the page shows it."""

    id: str
    at: datetime
    kind: Kind
    icon: str
    title: str
    tone: Tone  #: of its icon
    lines: Sequence[TimelineLine] = ()
    moves: Sequence[Transition] = ()
    bytes: MessageBytes | None = None
    replay: str | None = None  #: where a form may ask for it to be applied once more


_ICONS_OF_SOURCES: Final = {
    **dict.fromkeys((Source.POLL, Source.LIST, Source.JOURNAL), "ask"),
    **dict.fromkeys((Source.CREATE, Source.CANCEL, Source.CAPTURE, Source.REFUND), "call"),
    Source.WEBHOOK: "in",
    Source.CALLBACK: "in",
    Source.RETURN: "payer",
    Source.MERCHANT: "wish",
    Source.POLLER: "clock",
    Source.OPERATOR: "person",
}
_ICONS: Final = {"attempt": "out", "action": "person", "rejected": "in"}

#: Statements of a person or of our poller are made anew, and not repeated.
_NOT_REPLAYED: Final = (Source.OPERATOR, Source.POLLER)


def page_entries(history: PaymentHistory, scheme: Scheme | None, permissions: frozenset[Permission]) -> list[PageEntry]:
    """Make the page's entries in its order, without what the permissions do not cover."""
    return [_entry(entry, scheme, permissions) for entry in timeline.entries(history)]


def _entry(entry: TimelineEntry, scheme: Scheme | None, permissions: frozenset[Permission]) -> PageEntry:
    row, source = entry.row, entry.source
    icon = _ICONS[entry.kind] if source is None else _ICONS_OF_SOURCES[source]
    made = PageEntry(entry.id, entry.at, entry.kind, icon, entry.title, entry.tone, entry.lines, entry.moves)
    if isinstance(row, InboxMessage):
        is_replayed = source not in _NOT_REPLAYED and row.scrubbed_at is None
        replay = f"/console/inbox/{row.id}/replay" if is_replayed else None
        made = replace(made, bytes=_of_message(row, scheme), replay=replay)
    elif isinstance(row, RejectedDelivery):
        client = f", from {shown(row.client)}" if Permission.PERSONAL in permissions else ""
        made = replace(made, title=f"{entry.title}{client}", bytes=_of_rejected(row, scheme))
    if made.bytes is not None:
        made = replace(made, bytes=_withheld(made.bytes, permissions))
    return made


def _of_message(message: InboxMessage, scheme: Scheme | None) -> MessageBytes:
    return MessageBytes(
        contents=message_content(message),
        headers=[(shown(name), shown(value)) for name, value in message.headers],
        digest=message.digest,
        origin=origins.of_message(message, scheme),
        download=f"/console/inbox/{message.id}/body",
        scrubbed_at=message.scrubbed_at,
    )


def _of_rejected(rejected: RejectedDelivery, scheme: Scheme | None) -> MessageBytes:
    return MessageBytes(
        contents=message_content(rejected),
        headers=[(shown(name), shown(value)) for name, value in rejected.headers],
        digest=None,
        origin=origins.of_rejected(rejected, scheme)[1:],
        download=None,
    )


def _withheld(found: MessageBytes, permissions: frozenset[Permission]) -> MessageBytes:
    """Leave out the bytes and headers that the permissions do not cover."""
    if Permission.BODIES not in permissions:
        found = replace(found, contents=found.contents.withheld(), download=None, is_withheld=True)
    if Permission.HEADERS not in permissions:
        found = replace(found, headers=(), origin=origins.without_headers(found.origin), is_withheld=True)
    return found


#: Entries of the timeline on one page.
TIMELINE_PAGE_SIZE: Final = 200

#: Bytes of an export that are kept in memory; of a longer one the rest waits on disk while it is downloaded.
_EXPORT_MEMORY_BYTES: Final = 4 * 1024 * 1024
_CHUNK_BYTES: Final = 256 * 1024

_ENTRY_ID: Final = re.compile(r"[0-9a-f-]{36}", re.ASCII)


def routes(deps: ConsoleDeps, pages: PageRenderer) -> list[BaseRoute]:
    """Return the routes of the page, its live updates, proof and downloads."""
    page = PaymentPage(deps, pages, LiveUpdates(deps, payment_marks))
    return [
        Route("/console/payments/{id}", page.show, methods=["GET"]),
        Route("/console/payments/{id}/live", page.live, methods=["GET"]),
        Route("/console/payments/{id}/proof", page.proof, methods=["GET"]),
        Route("/console/payments/{id}/export", page.export, methods=["GET"]),
        Route("/console/inbox/{id}/body", page.body, methods=["GET"]),
    ]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Data of one page, read in one snapshot."""

    page: PaymentHistory
    mark: str
    breaker: Breaker
    pause: timedelta


@dataclass(frozen=True, slots=True)
class _MoneyForm:
    """Form of a capture or refund: what it is called, what it sends, and its key."""

    call: str
    label: str
    amount: str  #: what remains, in major units
    words: str
    key: str  #: the form sends once, however often it is posted


@dataclass(frozen=True, slots=True)
class StateChoice:
    """One state that an operator may declare to be the true one."""

    state: str
    words: str


@dataclass(frozen=True, slots=True)
class PaymentPage:
    """The pages about one payment."""

    deps: ConsoleDeps
    pages: PageRenderer
    watched: LiveUpdates

    async def show(self, request: Request) -> Response:
        """Serve the payment and the newest entries of its timeline; raises NotFound.

        With `before` they are those before that entry.
        """
        payment_id, before = request.path_params["id"], request.query_params.get("before", "")
        place = before if _ENTRY_ID.fullmatch(before) else None
        now = self.deps.clock()
        read = await self.deps.read(lambda unit: _read(unit, payment_id, place, now))
        why = await self.deps.in_thread(lambda: self.deps.polling.why(read.page.payment, read.page.poll, now))
        return await self.pages.show(
            request, "payment.html", **self._context(read, why, now, request.state.person, before=place)
        )

    def _context(
        self, read: _Snapshot, why: str | None, now: datetime, person: Person, *, before: str | None
    ) -> dict[str, Any]:
        page, payment = read.page, read.page.payment
        account = self.deps.accounts.get(payment.account)
        lifecycle = account.lifecycles.get(payment.kind) if account else None
        is_terminal = (
            lifecycle is not None and payment.state in lifecycle.by_name and lifecycle.is_terminal(payment.state)
        )
        in_the_way = find_blockers(
            payment,
            page.poll,
            page.owed,
            page.attempts,
            page.waiting,
            read.breaker,
            now,
            is_terminal=is_terminal,
            pause=read.pause,
        )
        return {
            "payment": payment,
            "poll": page.poll,
            "account": account,
            "checkout": checkout_url(payment),
            "names": other_names(payment),
            "money_parts": parts_told(payment),
            "mark": read.mark,
            "why": why,
            "is_terminal": is_terminal,
            "remedy": REMEDIES[Review(payment.review)] if payment.review else None,
            "obstacles": in_the_way,
            "drawing": diagram_of(lifecycle, page.transitions, payment.state),
            "transitions": page.transitions,
            "said_by": lambda transition: shown(said_by(transition)),
            "state_said_by": shown(said_by(page.transitions[-1])) if page.transitions else None,
            "effects": effects_of(page.owed, page.attempts),
            "entries": page_entries(page, account.authentication if account else None, person.permissions),
            "on_page": {row.id for row in page.rows},
            "older": page.older,
            "before": before,
            "choices": choices(lifecycle, payment) if lifecycle is not None else [],
            "can_ask": _can(account, Capability.ASK, payment),
            "can_cancel": not is_terminal and _can(account, Capability.CANCEL, payment),
            "cancel_words": _cancel_words(account),
            "movements": list(_movements(account, lifecycle, payment)),
        }

    async def live(self, request: Request) -> Response:
        """Stream a mark, and another whenever the payment has changed."""
        payment_id = request.path_params["id"]
        await self.deps.read(lambda unit: payments.get(unit, payment_id))
        return self.watched.stream(request, payment_id)

    async def proof(self, request: Request) -> Response:
        """Verify all that is kept of the payment, and show the result; raises NotFound."""
        payment_id = request.path_params["id"]
        payment = await self.deps.read(lambda unit: payments.get(unit, payment_id))
        proof = await self.deps.in_thread(lambda: self.deps.prover.prove(payment_id))
        return await self.pages.show(request, "payment_proof.html", payment=payment, proof=proof)

    async def export(self, request: Request) -> Response:
        """Serve the payment's rows with digests and bytes as JSON lines.

        They can be verified without this program.
        """
        payment_id = request.path_params["id"]
        file = await self.deps.in_thread(lambda: self._exported(payment_id))
        name = f'attachment; filename="payment-{payment_id}.ndjson"'
        return StreamingResponse(
            self._sent(file), media_type="application/x-ndjson", headers={"content-disposition": name}
        )

    def _exported(self, payment_id: str) -> IO[bytes]:
        """Write all rows to a file, so that a slow download holds no snapshot open."""
        file = SpooledTemporaryFile(_EXPORT_MEMORY_BYTES)  # noqa: SIM115 - closed when it was sent
        try:
            for line in self.deps.prover.export(payment_id):
                file.write(f"{line}\n".encode())
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    async def _sent(self, file: IO[bytes]) -> AsyncIterator[bytes]:
        try:
            while chunk := await self.deps.in_thread(lambda: file.read(_CHUNK_BYTES)):
                yield chunk
        finally:
            file.close()

    async def body(self, request: Request) -> Response:
        """Serve the exact bytes of one message; raises NotFound."""
        message_id = request.path_params["id"]
        message = await self.deps.read(lambda unit: inbox.get(unit, message_id))
        headers = {
            "content-disposition": f'attachment; filename="message-{message.id}.bin"',
            "x-body-digest": message.digest,
        }
        return Response(bytes(message.body), media_type="application/octet-stream", headers=headers)


def _read(unit: Unit, payment_id: str, before: str | None, now: datetime) -> _Snapshot:
    page = payment_history.read(unit, payment_id, before=before, limit=TIMELINE_PAGE_SIZE)
    account = page.payment.account
    return _Snapshot(
        page=page,
        mark=payment_marks(unit, [payment_id])[payment_id],
        breaker=rate_limits.breaker(unit, account),
        pause=rate_limits.pause_left(unit, account, now),
    )


def diagram_of(
    lifecycle: Lifecycle | None, transitions: Sequence[Transition], state: str | None
) -> LifecycleDrawing | None:
    """Lay out the lifecycle with these transitions; None without a lifecycle."""
    if lifecycle is None:
        return None
    way = [
        DrawnTransition(
            number=transition.number,
            source=transition.from_state,
            target=transition.to_state,
            via=tuple(transition.via),
            forced=transition.forced,
            at=transition.as_of or transition.recorded_at,
            phase=transition.phase,
        )
        for transition in transitions
    ]
    return draw_lifecycle(lifecycle, way, state)


def effects_of(
    owed: Sequence[OutboxMessage], attempts: Sequence[DeliveryAttempt]
) -> list[tuple[OutboxMessage, list[DeliveryAttempt]]]:
    """Pair each effect with its attempts, the newest first."""
    tries: dict[str, list[DeliveryAttempt]] = {}
    for attempt in attempts:
        tries.setdefault(attempt.outbox_id, []).insert(0, attempt)
    return [(message, tries.get(message.id, [])) for message in owed]


def choices(lifecycle: Lifecycle, payment: Payment) -> list[StateChoice]:
    """Return the states for a resolution: the present, the reachable, then the others."""
    moves = moves_of(lifecycle)
    is_known = payment.state is None or lifecycle.knows(payment.state)
    ranked: list[tuple[int, StateChoice]] = []
    for name in (*(state.name for state in lifecycle.states), NOT_CREATED):
        if name == NOT_CREATED and payment.state is not None and payment.state != NOT_CREATED:
            continue
        phase = lifecycle.phase(name).value
        if name == payment.state:
            ranked.append((0, StateChoice(name, f"{name} ({phase}): as it is, and the review is closed")))
        elif is_known and moves.walk(payment.state, name) is not None:
            ranked.append((1, StateChoice(name, f"{name} ({phase})")))
        else:
            ranked.append((2, StateChoice(name, f"{name} ({phase}): against the lifecycle, recorded as forced")))
    return [choice for _, choice in sorted(ranked, key=lambda each: each[0])]


def _can(account: ConfiguredAccount | None, capability: Capability, payment: Payment) -> bool:
    """Return whether the provider has the call for this payment."""
    if account is None or payment.provider_ref is None:
        return False
    return payment.kind in account.capabilities.get(capability, ())


def _movements(
    account: ConfiguredAccount | None, lifecycle: Lifecycle | None, payment: Payment
) -> Iterator[_MoneyForm]:
    """Yield a form for each of capture and refund that the payment can have now."""
    if account is None or lifecycle is None or payment.currency is None:
        return
    for call, label in ((Capability.CAPTURE, "Capture"), (Capability.REFUND, "Refund")):
        remaining = remaining_minor(call, payment, lifecycle)
        if remaining <= 0 or not _can(account, call, payment):
            continue
        most = amount_text(remaining, payment.currency)
        words = (
            f"{account.provider} is sent one {call.value} call for {payment.provider_ref}, of the amount below and at "
            f"most {most}. The sums here change when the provider says so."
        )
        yield _MoneyForm(call.value, label, most.partition(" ")[0], words, new_id())


def _cancel_words(account: ConfiguredAccount | None) -> str:
    where = account.provider if account is not None else "the provider"
    return (
        f"{where} is asked first, then told to cancel, and asked again where its answer leaves a doubt. The payment is "
        "cancelled here only when the provider says so; if the payer was quicker, it is paid, and fulfilment goes out."
    )
