"""One reconciliation: the provider's list first, then one question for each payment that is not on it."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import structlog

from poller import circuit_breaker
from poller.errors import ReconciliationPaused
from poller.polling import LEASE
from providers.contract import Answer, Client, Page
from providers.errors import ProviderError, UnsupportedByProvider
from statemachine.errors import ServiceError
from statemachine.lifecycle import NOT_CREATED
from statemachine.phases import Outcome, Phase, Source
from storage import inbox, rate_limits, reconciliations
from storage.database import Database, Unit
from storage.rate_limits import Gate
from storage.reconciliations import Candidate
from storage.tables import InboxMessage
from storage.tables_support import Reconciliation

IsTerminal = Callable[[str, str | None], bool]  #: of kind and state

#: Where the money is, or is gone again: a terminal state of these phases is the provider's last word.
_LAST_WORDS: Final = frozenset({Phase.PAID, Phase.SETTLED, Phase.REFUNDED})


def can_differ(candidate: Candidate, is_terminal: IsTerminal) -> bool:
    """Whether the provider may know more of the payment than we do, so that it is worth a question.

    - Open, processing, or in any state that something legal follows: yes. A paid payment that its provider can still
      settle or refund is one of these, however long ago it was paid.
    - Ended without money (failed, cancelled, expired): yes, although most lifecycles call that terminal. Money comes
      late, and a provider that then changes its word tells nobody who has stopped asking; that is the dearest drift of
      all, since the goods are not given out.
    - Terminal with the money there, or given back: no. By the provider's own lifecycle nothing follows, so a question
      could only be answered with what we know.
    - Refused by the provider when we wanted to create it, so that there is nothing there: no.

    The reconciliation's range bounds all of it: what neither began nor changed within it is not asked about.
    """
    if candidate.state == NOT_CREATED:
        return False
    return not is_terminal(candidate.kind, candidate.state) or candidate.phase not in _LAST_WORDS


def tells(outcome: Mapping[str, Any]) -> bool:
    """Return True where what was decided about one payment settles what state the provider has it in.

    A conflict, an unknown status, a statement that was overtaken or a mere hint does not: the provider is asked.
    """
    return bool(outcome["outcome"] == Outcome.ADVANCED or outcome.get("state_confirmed"))


def rest_of(
    in_range: Sequence[Candidate], named: Sequence[Candidate], told: frozenset[str], is_terminal: IsTerminal
) -> list[Candidate]:
    """What is to be asked about, in order and each once: of the range what can differ, and what the list only named.

    `told` are the ids of the payments whose state the list has told; they are left out. What the provider has not
    given an id yet cannot be asked about (see unnamed()).
    """
    wanted = {candidate.id: candidate for candidate in in_range if can_differ(candidate, is_terminal)}
    wanted |= {candidate.id: candidate for candidate in named}
    return sorted(
        (c for c in wanted.values() if c.id not in told and c.provider_ref is not None), key=lambda found: found.id
    )


def unnamed(in_range: Iterable[Candidate]) -> list[Candidate]:
    """Those that nobody can be asked about: a create call of ours left no answer that names them."""
    return [found for found in in_range if found.provider_ref is None and found.state is None]


Answered = TypeVar("Answered")
Sleep = Callable[[float], Awaitable[None]]

#: How often one question is put.
_ATTEMPTS: Final = 3

#: The first wait between two of them, in seconds; doubles.
_FIRST_WAIT: Final = 1.0

#: A longer wait that the provider wishes for ends the walk for now.
_LONGEST_WAIT: Final = 60.0

#: So many questions in a row without an answer are an outage: one that fails says nothing of the next.
_OUTAGE: Final = 5

#: How long a walk waits for a provider that is away.
_AWAY: Final = timedelta(seconds=60)

#: Answers that say nothing of what was asked about: our key is refused, or we ask too much.
_NOT_OF_THE_QUESTION: Final = frozenset({401, 403, 429})


def is_outage(error: ProviderError) -> bool:
    """Whether the next question is likely to fail too: no answer, a fault of the provider's, or our key is refused."""
    if error.http_status is None:
        return error.may_retry
    return error.http_status >= 500 or error.http_status in _NOT_OF_THE_QUESTION


class Questions:
    """Puts questions to one provider account, and gives up on it after many in a row had no answer.

    The account's breaker is heeded, and told what becomes of each question: who else asks finds out sooner.
    """

    def __init__(
        self, database: Database, account: str, clock: Callable[[], datetime], sleep: Sleep, rng: random.Random
    ) -> None:
        self._database = database
        self._account = account
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._in_a_row = 0
        self._paused: ReconciliationPaused | None = None
        self.is_probe = False  #: whether only one question may be put, to try whether the provider is back

    async def wait_until_there(self) -> None:
        """Return when the account may be asked; raises ReconciliationPaused where it has been away for long."""
        while not self.is_probe and (wait := await asyncio.to_thread(self._wait_for_the_breaker)):
            await self._sleep(wait)

    async def put(self, ask: Callable[[], Awaitable[Answered]]) -> Answered:
        """The answer, after at most three tries. Raises ProviderError, or what else the call raises, where there is
        none, and ReconciliationPaused, for this and every later question, where the provider is away.
        """
        for attempt in range(_ATTEMPTS):
            if self._paused is not None:
                raise self._paused
            try:
                answer = await ask()
            except ProviderError as error:
                if not error.may_retry or attempt + 1 == _ATTEMPTS:
                    await asyncio.to_thread(self._note_failure, error)
                    self._count(error)
                    raise
                await self._sleep(self._wait(error, attempt))
            else:
                self._in_a_row = 0
                return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    def pause(self, error: ProviderError, *, wait: float | None = None) -> ReconciliationPaused:
        """No more questions: what is to be raised for this error."""
        words = f"the provider gives no answers now ({error.code}: {error.message})"
        self._paused = self._paused or ReconciliationPaused(words, wait=wait or error.retry_after)
        return self._paused

    def _wait_for_the_breaker(self) -> float:
        """Seconds to wait before it is worth looking again; 0 where one may ask, and that may be the probe."""
        now = self._clock()
        with self._database.write() as unit:
            gate = rate_limits.gate(unit, self._account, now, LEASE)
            state = rate_limits.breaker(unit, self._account)
        self.is_probe = gate is Gate.PROBE
        if gate is not Gate.OPEN:
            return 0.0
        if state.broken_at is not None and now - state.broken_at > _AWAY:
            words = f"it has been away since {state.broken_at:%Y-%m-%d %H:%M:%SZ}"
            raise self.pause(ProviderError(words, provider_code="provider_away"))
        return max(1.0, (state.probe_at - now).total_seconds()) if state.probe_at else 1.0

    def note_answer(self, unit: Unit) -> circuit_breaker.Change | None:
        """The breaker knows of an answer; writes nothing where none was missing before. For `breaker.log_change`."""
        was_probe, self.is_probe = self.is_probe, False
        return circuit_breaker.note(unit, self._account, None, self._clock(), 0.0, was_probe=was_probe)

    def _note_failure(self, error: ProviderError) -> None:
        now, jitter = self._clock(), self._rng.random()
        was_probe, self.is_probe = self.is_probe, False
        with self._database.write() as unit:
            change = circuit_breaker.note(unit, self._account, error, now, jitter, was_probe=was_probe)
        circuit_breaker.log_change(self._account, change)

    def _count(self, error: ProviderError) -> None:
        self._in_a_row = self._in_a_row + 1 if is_outage(error) else 0
        if self._in_a_row >= _OUTAGE:
            raise self.pause(error) from error

    def _wait(self, error: ProviderError, attempt: int) -> float:
        if error.retry_after is not None and error.retry_after > _LONGEST_WAIT:
            raise self.pause(error) from error
        return max(error.retry_after or 0.0, _FIRST_WAIT * 2.0**attempt * (1 + self._rng.random() / 5))


async def all_of(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Every one has ended; where one raised, the others are ended first, and then that is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


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
        circuit_breaker.log_change(self.row.account, change)
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
