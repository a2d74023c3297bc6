"""Read the events that a provider has logged: none is missed, and loss is known.

One call answers for hundreds of payments. Each event is an inbox message under its webhook's delivery key: one that
came as a webhook already is counted and not recorded again, one that did not is recorded, and its webhook is then a
redelivery. The events of a page and the position after it are kept in one commit.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from poller import circuit_breaker
from poller.rate_limiter import low_priority
from poller.schedule import PollPolicy
from providers.contract import Client, Delivery, JournalPage, Provider
from providers.errors import ProviderError
from statemachine.histograms import Counts, counts
from statemachine.phases import Source
from storage import inbox, journals, rate_limits
from storage.database import Database
from storage.errors import StorageUnavailable
from storage.journals import JournalState

log = structlog.get_logger()

#: Lease of a journal while a page is asked for; a crash lets another process go on after it.
_LEASE: Final = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class JournaledAccount:
    """Client and provider of an account whose events are listed."""

    client: Client
    provider: Provider


@dataclass(frozen=True, slots=True)
class JournalStep:
    """Result of one step: events, those that no webhook had brought, and more or not."""

    events: int = 0
    unpushed: int = 0
    has_more: bool = False


class JournalReader:
    """Read each account's journal on from its kept position.

    Safe in any number of processes.
    """

    def __init__(
        self,
        database: Database,
        accounts: Mapping[str, JournaledAccount],
        clock: Callable[[], datetime],
        rng: random.Random,
        *,
        interval: timedelta,
        policy: PollPolicy,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._clock = clock
        self._rng = rng
        self._interval = interval
        self._policy = policy
        self._due_at: dict[str, datetime] = {}  #: as this process knows: a first look that costs no query
        self.read: Counts = counts()  #: events by account and outcome: pushed or unpushed

    async def step(self, account: str) -> JournalStep:
        """Read one page if the account's journal is due. Raises StorageUnavailable."""
        if account not in self._accounts or self._due_at.get(account, self._clock()) > self._clock():
            return JournalStep()
        state = await asyncio.to_thread(self._claim, account)
        if state is None:
            return JournalStep()
        try:
            with low_priority():
                page = await self._accounts[account].client.journal_page(state.since, state.position)
        except StorageUnavailable:
            raise  # no turn was granted: nothing was sent
        except ProviderError as failed:
            await asyncio.to_thread(self._note_failure, state, failed.with_traceback(None))
        except Exception as fault:  # a bug in reading the journal must not stop the questions
            log.exception("journal.failed", account=account)
            error = ProviderError(f"reading failed here: {type(fault).__name__}", provider_code="internal")
            await asyncio.to_thread(self._note_failure, state, error)
        else:
            return await asyncio.to_thread(self._record, state, page)
        return JournalStep()

    def _claim(self, account: str) -> JournalState | None:
        now = self._clock()
        self._due_at[account] = now + self._interval
        with self._database.read() as unit:
            if rate_limits.is_barred(unit, account, now):
                return None
        with self._database.write() as unit:
            return journals.claim(unit, account, now, _LEASE)

    def _record(self, state: JournalState, page: JournalPage) -> JournalStep:
        account, now = state.account, self._clock()
        provider = self._accounts[account].provider
        next_at = now if page.has_more else now + self._interval
        messages = [
            inbox.new_message(
                account=account,
                source=Source.JOURNAL.value,
                delivery_key=provider.identity(Delivery(body, ()), now),
                body=body,
                received_at=now,
                provider_time=page.asked_at,
            )
            for body in page.events
        ]
        with self._database.write() as unit:
            unpushed = inbox.record_unpushed(unit, messages)
            position = page.position or state.position
            journals.advance(
                unit,
                account,
                position,
                events=len(messages),
                unpushed=unpushed,
                read_at=page.asked_at,
                next_at=next_at,
            )
            change = circuit_breaker.record_outcome(unit, account, None, now, 0.0)
        circuit_breaker.log_change(account, change)
        self._due_at[account] = next_at
        self.read[account, "pushed"] += len(messages) - unpushed
        self.read[account, "unpushed"] += unpushed
        if messages:
            log.info("journal.read", account=account, events=len(messages), unpushed=unpushed)
        return JournalStep(len(messages), unpushed, page.has_more)

    def _note_failure(self, state: JournalState, error: ProviderError) -> None:
        now, jitter = self._clock(), self._rng.random()
        next_at = self._policy.after_failure(state.failures, error.retry_after, error.may_retry, now, jitter)
        with self._database.write() as unit:
            journals.note_failure(unit, state.account, f"{error.code}: {error.message}", next_at)
            change = circuit_breaker.record_outcome(unit, state.account, error, now, jitter)
        circuit_breaker.log_change(state.account, change)
        self._due_at[state.account] = next_at
        log.warning("journal.failed", account=state.account, code=error.code, http_status=error.http_status)
