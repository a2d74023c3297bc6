"""One walk: through the provider's list, then one by one through the rest. Records what it hears, decides nothing.

Every step is one commit of what was heard and how far the walk is, fenced by the walk's lease: a crash between any two
leaves a walk that goes on without a hole, and nothing that was counted twice.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from poller import breaker
from poller.questions import Questions, Sleep, all_of, is_outage
from poller.rest import IsTerminal, rest_of, tells, unnamed
from providers.contract import Answer, Client, Page
from providers.errors import ProviderError, UnsupportedByProvider
from statemachine.errors import ServiceError
from statemachine.phases import Source
from storage import inbox, reconciliations
from storage.database import Database
from storage.reconciliations import Candidate
from storage.tables import InboxMessage
from storage.tables_support import Reconciliation

log = structlog.get_logger()

Apply = Callable[[Sequence[str]], Awaitable[None]]
Told = Callable[[Reconciliation], None]

LISTING: Final = "listing"
ASKING: Final = "asking"

#: How many payments are asked about between two notes of how far the walk is, for each question under way at once.
_ROUND: Final = 8

#: Of so many payments that could not be asked about the row says why; of the others how many they are.
_TOLD: Final = 1000

_MANY: Final = 500

#: A key may be good for payments and not for the list; one that is good for nothing is found out by the next question.
_NOT_OURS_TO_LIST: Final = 403


@dataclass(frozen=True, slots=True)
class WalkedAccount:
    """One account that is walked: its client, and which states nothing legal follows."""

    client: Client
    is_terminal: IsTerminal


@dataclass(frozen=True, slots=True)
class Tools:
    """What every walk works with."""

    database: Database
    clock: Callable[[], datetime]
    apply: Apply  #: has these messages applied, as far as they can be now; by another process, or not yet, is no fault
    sleep: Sleep
    concurrency: int = 4  #: questions under way at once
    lease: timedelta = timedelta(seconds=60)
    #: How long to wait for messages that are not applied, while nothing becomes of any. Longer than a page may be put
    #: off because a create call is under way, or what it tells would be missing in the report.
    patience: timedelta = timedelta(seconds=180)


class Walk:
    """One run of a walk, by whoever has claimed its row."""

    def __init__(
        self, tools: Tools, account: WalkedAccount, row: Reconciliation, rng: random.Random, told: Told
    ) -> None:
        self._tools = tools
        self._account = account
        self.row = row  #: as it was last committed
        self._questions = Questions(tools.database, row.account, tools.clock, tools.sleep, rng)
        self._told = told
        self._writing = asyncio.Lock()  # what is counted in the row is counted by one at a time

    async def run(self) -> None:
        """The list was walked through and every payment of the rest was asked about, and all of that is applied.

        What cannot be asked about is counted and told. Raises ReconciliationPaused where the provider is away,
        LeaseLost and StorageUnavailable; what was heard until then is kept, and another run goes on from there.
        """
        is_anew = False
        while self.row.stage == LISTING:
            await self._questions.wait_until_there()
            try:
                await self._keep_page(await self._questions.put(self._page))
            except UnsupportedByProvider as error:
                await self._keep(stage=ASKING, position=None, unasked=self._unasked([_unlisted(error)]))
            except ProviderError as error:
                if is_outage(error) and error.http_status != _NOT_OURS_TO_LIST:
                    raise self._questions.pause(error) from error
                if self.row.position is not None and not is_anew:  # a cursor that it has forgotten: once more
                    is_anew = True
                    await self._keep(position=None)
                    continue
                await self._keep(stage=ASKING, position=None, unasked=self._unasked([_unlisted(error)]))
        await self._settle()
        await self._ask_the_rest()
        await self._settle()

    # -- listing

    async def _page(self) -> Page:
        try:
            return await self._account.client.list_page(self.row.since, self.row.until, self.row.position)
        except ServiceError:
            raise
        except Exception as fault:  # a bug met by the list must not keep the rest from being asked about
            log.exception("reconcile.failed", account=self.row.account, reconciliation_id=self.row.id)
            raise ProviderError(f"listing failed here: {type(fault).__name__}", provider_code="internal") from fault

    async def _keep_page(self, page: Page) -> None:
        row, number = self.row, self.row.pages + 1
        message = self._message(Source.LIST, page.answer, f"page:{number}", None)
        changes: dict[str, Any] = {"pages": number, "listed": row.listed + page.count, "position": page.next}
        if page.next is None or page.fault:
            changes |= {"stage": ASKING, "position": None}
        if page.fault:
            changes["unasked"] = self._unasked([_unlisted(ProviderError(page.fault))])
        await self._keep(message, **changes)
        await self._tools.apply([message.id])

    # -- asking

    async def _ask_the_rest(self) -> None:
        rest, nameless = await asyncio.to_thread(self._rest)
        position = self.row.position
        if position is None:
            missing = [_unasked(found, "unnamed", "the provider has not named it") for found in nameless]
            await self._keep(to_ask=self.row.asked + len(rest), unasked=self._unasked(missing))
        left = [found for found in rest if position is None or found.id > position]
        while left:
            await self._questions.wait_until_there()
            count = 1 if self._questions.is_probe else _ROUND * self._tools.concurrency
            await self._ask_about(left[:count])
            left = left[count:]

    def _rest(self) -> tuple[list[Candidate], list[Candidate]]:
        """What is still to be asked about, and what nobody can be asked about."""
        row, told, named = self.row, set[str](), set[str]()
        with self._tools.database.read() as unit:
            after = ""
            while page := reconciliations.messages(unit, row, after=after, limit=_MANY):
                after = page[-1].id
                told |= {heard.about for heard in page if heard.about is not None}  # asked by a run before this one
                for outcome in (outcome for heard in page for outcome in heard.outcomes if "payment" in outcome):
                    (told if tells(outcome) else named).add(outcome["payment"])
            in_range = reconciliations.candidates(unit, row)
            others = [
                found for ids in _chunks(sorted(named - told), _MANY) for found in reconciliations.these(unit, ids)
            ]
        return rest_of(in_range, others, frozenset(told), self._account.is_terminal), unnamed(in_range)

    async def _ask_about(self, payments: Sequence[Candidate]) -> None:
        """One round: every answer is kept when it comes; then what had none, and that the round is over."""
        gate, failures, heard = asyncio.Semaphore(self._tools.concurrency), dict[str, ServiceError](), list[str]()

        async def ask(found: Candidate) -> None:
            async with gate:
                answer = await self._answer(found)
                if isinstance(answer, ServiceError):
                    failures[found.id] = answer
                    return
                message = self._message(Source.POLL, answer, found.id, found.id)
                await self._keep(message, asked=1)
                heard.append(message.id)

        await all_of(ask(found) for found in payments)
        missing = [
            _unasked(found, error.code, error.message) for found in payments if (error := failures.get(found.id))
        ]
        await self._keep(
            position=payments[-1].id, failed=self.row.failed + len(missing), unasked=self._unasked(missing)
        )
        await self._tools.apply(heard)

    async def _answer(self, found: Candidate) -> Answer | ServiceError:
        """The provider's answer, or why there is none; raises what ends the walk."""
        ref = found.provider_ref or ""
        try:
            return await self._questions.put(lambda: self._account.client.fetch(found.kind, ref))
        except (UnsupportedByProvider, ProviderError) as error:
            http_status = error.http_status if isinstance(error, ProviderError) else None
            log.warning("reconcile.failed", **self._about(found), code=error.code, http_status=http_status)
            return error
        except ServiceError:
            raise  # storage is away, or the walk is paused: nothing was asked
        except Exception as fault:  # a bug met by one payment must not end the questions about all others
            log.exception("reconcile.failed", **self._about(found))
            return ProviderError(f"asking failed here: {type(fault).__name__}", provider_code="internal")

    def _about(self, found: Candidate) -> dict[str, str]:
        return {"account": self.row.account, "reconciliation_id": self.row.id, "payment_id": found.id}

    # -- parts

    def _message(self, source: Source, answer: Answer, part: str, about: str | None) -> InboxMessage:
        return inbox.new_message(
            account=self.row.account,
            source=source.value,
            delivery_key=reconciliations.key(self.row.id, part),
            body=answer.body,
            received_at=self._tools.clock(),
            provider_time=answer.asked_at,
            kind=answer.kind,
            ref=answer.ref,
            http_status=answer.status,
            about=about,
        )

    async def _keep(self, message: InboxMessage | None = None, *, asked: int = 0, **changes: Any) -> None:
        """What was heard and how far the walk is are one commit; raises LeaseLost, and keeps neither then."""
        async with self._writing:
            work = asyncio.ensure_future(
                asyncio.to_thread(self._written, message, {"asked": self.row.asked + asked, **changes})
            )
            try:
                self.row = await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])  # short; the lease is given back after it, not before
                raise
        self._told(self.row)

    def _written(self, message: InboxMessage | None, changes: dict[str, Any]) -> Reconciliation:
        tools = self._tools
        with tools.database.write() as unit:
            change = None
            kept = reconciliations.keep(unit, self.row, tools.clock(), tools.lease, **changes)
            if message is not None:
                inbox.record(unit, [message])
                change = self._questions.note_answer(unit)
            if message is not None and message.about is not None and message.provider_time is not None:
                reconciliations.note_answered(unit, message.about, message.provider_time)
        breaker.log_change(self.row.account, change)
        return kept

    def _unasked(self, missing: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the row says could not be asked, with these; each once, however often a run comes by."""
        known = {(entry["payment"], entry["code"]) for entry in self.row.unasked}
        new = [entry for entry in missing if (entry["payment"], entry["code"]) not in known]
        return [*self.row.unasked, *new][:_TOLD]

    async def _settle(self) -> None:
        """Every message of the walk is applied, unless nothing becomes of some for as long as we wait for others."""
        tools, before = self._tools, list[str]()
        give_up_at = tools.clock() + tools.patience
        while waiting := await asyncio.to_thread(self._waiting):
            if waiting != before:
                before, give_up_at = waiting, tools.clock() + tools.patience
            elif tools.clock() >= give_up_at:
                return  # the report counts them
            else:
                await tools.sleep(0.2)
            await tools.apply(waiting)

    def _waiting(self) -> list[str]:
        with self._tools.database.read() as unit:
            return reconciliations.pending(unit, self.row)


def _unasked(found: Candidate, code: str, reason: str) -> dict[str, Any]:
    return {
        "payment": found.id,
        "kind": found.kind,
        "provider_ref": found.provider_ref,
        "code": code,
        "reason": reason,
    }


def _unlisted(error: ServiceError) -> dict[str, Any]:
    """Why there may be payments that nobody here has heard of."""
    return {"payment": None, "kind": None, "provider_ref": None, "code": error.code, "reason": error.message}


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))
