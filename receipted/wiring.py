"""Build the application's parts from the settings; only this reads the wall clock."""

import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from typing import Any

import httpx2

from audit.seals import Trust
from audit.verify import Audit, AuditedAccount, AuditReport
from fulfilment.apprise_sink import AppriseSink
from fulfilment.backoff import Backoff
from fulfilment.broker_sink import BrokerSink
from fulfilment.contract import Sink
from fulfilment.email_message import Letterhead
from fulfilment.email_sink import EmailSink
from fulfilment.handler_sink import HandlerSink
from fulfilment.http_sink import HttpSink
from poller.alarms import LossThreshold
from poller.journal import JournaledAccount, JournalReader
from poller.planner import Planner
from poller.polling import Poller
from poller.rate_limiter import DatabaseRateLimiter
from poller.schedule import PolledAccount, PollPolicy, PollSchedule
from poller.webhook_health import PushMonitor, PushMonitorSettings
from providers.catalogue import PROVIDERS
from providers.contract import Account, Budget, Capability, Client, Provider
from providers.http import HttpTransport
from receipted import logs, redaction
from receipted.metrics.process import MetricSources, SharedSnapshots
from receipted.settings.models import AccountSettings, Settings, SinkSettings
from receipted.tracing.starting import create_traces
from receipted.tracing.traces import Traces
from receiver.intake import IntakeSettings, ReceivingAccount
from receiver.returns import Tokens
from service.accounts import ConfiguredAccount, VerifyingKey
from service.audit import Prover
from service.command_inbox import CommandContext
from service.commands import Commands
from service.quarantine import Redeemer
from statemachine.phases import PartialCapture
from storage.database import Database
from storage.hashing import Sealer
from storage.retention import Retention
from worker.accounts import AccountRules, ApplySettings
from worker.dispatch import Dispatcher
from worker.housekeeping import Housekeeping
from worker.inbox_loop import InboxWorker


def provider_of(account: AccountSettings, providers: Mapping[str, type[Provider]] = PROVIDERS) -> Provider:
    """Build the account's provider with the account's options."""
    provider = providers[account.provider]
    return provider(provider.options_type.model_validate(account.options))


def account_of(name: str, account: AccountSettings, provider: Provider) -> Account:
    """Build the account for the provider's client, with its secrets revealed."""
    base_url = account.base_url or provider.default_base_url
    return Account(name, base_url.rstrip("/"), account.revealed_secrets())


def budget_of(account: AccountSettings, provider: Provider) -> Budget | None:
    """Return the account's budget, configured or documented; None if unlimited."""
    return account.configured_budget() or provider.budget


#: Seconds for connecting to a provider, and for its whole answer.
_PROVIDER_TIMEOUT = httpx2.Timeout(30.0, connect=5.0)


def utc_now() -> datetime:
    """Return the wall clock's time; everything else is passed a clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class WiredAccount:
    """One account with its provider."""

    name: str
    settings: AccountSettings
    provider: Provider

    @property
    def asked_kinds(self) -> frozenset[str]:
        """Return the kinds of payments that the provider can be asked about."""
        return self.provider.capabilities().get(Capability.ASK, frozenset())

    @property
    def can_reconcile(self) -> bool:
        """Return whether the provider can be asked about anything, or lists it."""
        return self.provider.can(Capability.ASK) or self.provider.can(Capability.LIST)


class Service:
    """The parts of one process, each built when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = utc_now
        self.database = Database(settings.service.database, Sealer(settings.service.audit_secrets()))
        #: for leases and due times: shared with the database by all processes, whatever their own clocks say
        self.work_clock = self.database.clock(self._wall_clock)
        known = settings.provider_types()
        self.accounts = {
            name: WiredAccount(name, account, provider_of(account, known))
            for name, account in settings.accounts.items()
        }
        self.parts = MetricSources()  #: the counting parts, for metrics
        self.pulse = self.parts.pulse
        self.metrics_slot: tuple[SharedSnapshots, int] | None = (
            None  #: where figures are shared with processes at the same socket
        )
        self._close_traces: Callable[[], None] = lambda: None
        self.has_failed = False  #: set when a loop ended by a bug
        # itsdangerous signs with the last key; the settings name the signing key first.
        self.tokens = Tokens([secret.encode() for _, secret in reversed(settings.service.token_secrets())])

    def _wall_clock(self) -> datetime:
        return self.clock()  # whichever it is by then

    @cached_property
    def traces(self) -> Traces:
        """The traces, sent where the settings name a collector.

        This begins a thread, so it must come after a fork.
        """
        made, self._close_traces = create_traces(self.settings, self.clock)
        return made

    def poll_policy(self) -> PollPolicy:
        """Return the intervals and limits for polling payments."""
        poller = self.settings.poller
        give_up = timedelta(seconds=poller.give_up_after_seconds) if poller.give_up_after_seconds else None
        return PollPolicy(
            min_price=poller.worth_seconds,
            min_interval=timedelta(seconds=poller.soonest_seconds),
            max_interval=timedelta(seconds=poller.longest_seconds),
            max_paid_interval=timedelta(seconds=poller.paid_every_seconds),
            late_checks=tuple(timedelta(seconds=age) for age in poller.late_checks_seconds),
            give_up_after=give_up,
            first_retry_wait=timedelta(seconds=poller.retry_first_seconds),
            max_retry_wait=timedelta(seconds=poller.retry_longest_seconds),
        )

    @cached_property
    def poll_schedule(self) -> PollSchedule:
        """This process's schedule of polls."""
        return PollSchedule(self.database, self._polled_accounts(), self.work_clock)

    def planner(self) -> Planner:
        """Build the planner of polls, which sets the accounts' prices."""
        budgets = {name: budget_of(account.settings, account.provider) for name, account in self.accounts.items()}
        allowed = {name: budget.requests / budget.seconds if budget else None for name, budget in budgets.items()}
        return Planner(self.database, self._polled_accounts(), allowed, self.work_clock)

    def _polled_accounts(self) -> dict[str, PolledAccount]:
        policy, journal = self.poll_policy(), timedelta(seconds=self.settings.poller.journal_seconds)
        return {
            name: PolledAccount(
                policy,
                partial(_is_terminal, account.provider),
                account.asked_kinds,
                journal if account.provider.can(Capability.JOURNAL) else None,
            )
            for name, account in self.accounts.items()
        }

    def batches(self) -> int:
        """Return how many batches of the inbox are decided at once; one on SQLite."""
        return self.settings.worker.batches if self.database.engine.dialect.name == "postgresql" else 1

    def inbox_worker(self) -> InboxWorker:
        """Build the worker that applies the inbox."""
        worker = self.settings.worker
        rules = {
            name: AccountRules(
                provider=account.provider,
                next_poll=self.poll_schedule.next_at,
                policy=account.settings.conflict_policy(),
                partial_capture=PartialCapture(account.settings.partial_capture),
                tolerance_minor=account.settings.tolerance_minor,
                adopts_unknown=account.settings.unknown_payments == "adopt",
                believes_push=account.settings.believes == "push",
                is_live=account.settings.environment == "live",
            )
            for name, account in self.accounts.items()
        }
        takes = {sink.name: sink.takes() for sink in self.settings.sinks}
        settings = ApplySettings(
            sinks=tuple(takes),
            takes=cache(lambda sink, effect: takes[sink](effect)),
            batch=worker.batch,
            lease=timedelta(seconds=worker.lease_seconds),
            max_attempts=worker.max_attempts,
            retry_first=timedelta(seconds=worker.retry_first_seconds),
            retry_longest=timedelta(seconds=worker.retry_longest_seconds),
            hint_asks=self.settings.poller.hint_asks,
            create_grace=timedelta(seconds=self.settings.poller.create_grace_seconds),
        )
        made = InboxWorker(self.database, rules, settings, self.work_clock, logs.sample, self.traces.decided)
        self.parts.workers.append(made)
        return made

    def receiving_accounts(self) -> dict[str, ReceivingAccount]:
        """Return the accounts as the receiver needs them."""
        return {
            name: ReceivingAccount(name, account.provider, account.settings.keyring(), account.settings.window())
            for name, account in self.accounts.items()
        }

    def intake_settings(self) -> IntakeSettings:
        """Return the limits of the receiver."""
        service = self.settings.service
        return IntakeSettings(
            body_limit=service.body_limit_bytes,
            body_seconds=service.body_timeout_seconds,
            trusted_proxies=service.trusted_proxies,
            is_development=service.development,
        )

    def audited_accounts(self) -> dict[str, AuditedAccount]:
        """Return the accounts as the audit needs them, with keys that have ended too."""
        return {
            name: AuditedAccount(
                account.provider,
                {key.id: key for key in account.settings.keyring().keys},
                account.settings.window(),
                account.settings.environment == "live",
            )
            for name, account in self.accounts.items()
        }

    def trust(self) -> Trust:
        """Return what the audit trusts that is not in the database."""
        service = self.settings.service
        return Trust(self.database.sealer, service.audit_keyed_since, frozenset(service.audit_retired_key_ids))

    def audit(self, on_progress: Callable[[AuditReport], None] = lambda _report: None) -> Audit:
        """Build the audit of the history."""
        return Audit(self.database, self.audited_accounts(), self.trust(), on_progress=on_progress)

    def prover(self) -> Prover:
        """Build what proves and exports one payment."""
        return Prover(self.database, self.audit)

    def redeemer(self) -> Redeemer:
        """Build what verifies quarantined deliveries again."""
        return Redeemer(self.database, self._wall_clock, self.receiving_accounts)

    def configured_accounts(self) -> dict[str, ConfiguredAccount]:
        """Return every account by name, without its secrets."""
        public_url = self.settings.service.public_url
        return {name: _configured_account(account, public_url) for name, account in self.accounts.items()}

    def commands(self, clients: Mapping[str, Client]) -> Commands:
        """Build the commands, which use these clients by account."""
        return Commands(
            CommandContext(
                database=self.database,
                clock=self._wall_clock,
                work_clock=self.work_clock,
                worker=self.inbox_worker(),
                poller=self.poller(clients),
                traces=self.traces,
                providers={name: account.provider for name, account in self.accounts.items()},
                clients=clients,
                tokens=self.tokens,
                public_url=self.settings.service.public_url,
                is_development=self.settings.service.development,
            )
        )

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[dict[str, Client]]:
        """Open a client for each account, each within its request budget."""
        limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20)
        async with httpx2.AsyncClient(timeout=_PROVIDER_TIMEOUT, limits=limits, follow_redirects=False) as http:
            yield {name: self.client(account, http) for name, account in self.accounts.items()}

    def client(self, account: WiredAccount, http: httpx2.AsyncClient) -> Client:
        """Build a client of one account, within its request budget."""
        budget = budget_of(account.settings, account.provider)
        pace = DatabaseRateLimiter(self.database, account.name, budget, self.clock)
        transport = HttpTransport(http, pace, self.clock, allow_loopback_http=self.settings.service.development)
        called = account_of(account.name, account.settings, account.provider)
        return account.provider.client(called, transport, self.clock)

    def poller(self, clients: Mapping[str, Client], on_answer: Callable[[str], None] = lambda _account: None) -> Poller:
        """Build the poller; `on_answer` is called with the account after each poll."""
        made = Poller(
            self.database,
            clients,
            self.poll_schedule,
            self.work_clock,
            random.Random(),  # noqa: S311 - jitter, not a secret
            concurrency=self.settings.poller.concurrency,
            create_grace=timedelta(seconds=self.settings.poller.create_grace_seconds),
            on_answer=on_answer,
            tracer=self.traces,
            journal=self.journal_reader(clients),
        )
        self.parts.pollers.append(made)
        return made

    def journal_reader(self, clients: Mapping[str, Client]) -> JournalReader:
        """Build the reader of the journals of the accounts that have one."""
        return JournalReader(
            self.database,
            {
                name: JournaledAccount(clients[name], account.provider)
                for name, account in self.accounts.items()
                if account.provider.can(Capability.JOURNAL)
            },
            self.work_clock,
            random.Random(),  # noqa: S311 - jitter, not a secret
            interval=timedelta(seconds=self.settings.poller.journal_seconds),
            policy=self.poll_policy(),
        )

    def push_monitor(self) -> PushMonitor:
        """Build the monitor of webhook delivery, which raises the accounts' alarms."""
        push = self.settings.push
        settings = PushMonitorSettings(
            every=timedelta(seconds=push.measure_every_seconds),
            grace=timedelta(seconds=push.grace_seconds) if push.grace_seconds is not None else None,
            loss=LossThreshold(push.loss_alarm, push.loss_samples),
            unreachable=timedelta(seconds=push.unreachable_seconds),
        )
        providers = {name: account.provider for name, account in self.accounts.items()}
        return PushMonitor(self.database, providers, self.work_clock, settings)

    @asynccontextmanager
    async def dispatcher(self, on_end: Callable[[], None] = lambda: None) -> AsyncIterator[Dispatcher]:
        """Run the dispatcher of effects; `on_end` is called after each delivery."""
        settings = self.settings.fulfilment
        sinks = {sink.name: self.sink(sink) for sink in self.settings.sinks}
        dispatcher = Dispatcher(
            self.database,
            sinks,
            self.clock,
            random.Random(),  # noqa: S311 - jitter, not a secret
            # longer than any delivery, and no longer than needed: what was under way at a crash waits for its end
            lease=timedelta(seconds=2 * settings.timeout_seconds + 5),
            backoff=Backoff(settings.schedule_seconds, max_attempts=len(settings.schedule_seconds) + 1),
            concurrency=settings.concurrency,
            on_end=on_end,
            work_clock=self.work_clock,
            sample=logs.sample,
            traced=self.traces,
            redact_answer=redaction.redact_answer,
        )
        self.parts.dispatchers.append(dispatcher)
        try:
            yield dispatcher
        finally:
            await dispatcher.aclose()
            for sink in sinks.values():
                await sink.aclose()

    def sink(self, sink: SinkSettings) -> Sink:
        """Build one sink, which connects when first used; raises what it refuses."""
        settings = self.settings.fulfilment
        if sink.kind == "python":
            return HandlerSink(sink.name, sink.handler or "", timeout=settings.timeout_seconds)
        if sink.kind == "email":
            return self._email_sink(sink)
        if sink.kind == "apprise":
            return AppriseSink(
                sink.name,
                sink.url_text(),
                self._letterhead(sink),
                allow_loopback=self.settings.service.development,
                timeout=settings.timeout_seconds,
            )
        keys = [secret.reveal() for secret in sink.secrets]
        if sink.kind != "http":
            return BrokerSink(
                sink.name,
                sink.kind,
                sink.url_text(),
                sink.destination or "",
                keys,
                allowed_networks=settings.allowed_networks,
                authorities=sink.authorities.reveal() if sink.authorities is not None else None,
                timeout=settings.timeout_seconds,
            )
        return HttpSink(
            sink.name,
            sink.url_text(),
            keys,
            allowed_networks=settings.allowed_networks,
            allow_loopback=self.settings.service.development,
            timeout=settings.timeout_seconds,
        )

    def _letterhead(self, sink: SinkSettings) -> Letterhead:
        return Letterhead(
            sink.sender or "",
            sink.recipients,
            self.settings.service.public_url if self.settings.console.enabled else "",
            frozenset(name for name, account in self.accounts.items() if account.settings.environment == "test"),
        )

    def _email_sink(self, sink: SinkSettings) -> Sink:
        service, settings = self.settings.service, self.settings.fulfilment
        return EmailSink(
            sink.name,
            sink.url_text(),
            self._letterhead(sink),
            username=sink.username.reveal() if sink.username is not None else "",
            password=sink.password.reveal() if sink.password is not None else "",
            authorities=sink.authorities.reveal() if sink.authorities is not None else None,
            allowed_networks=settings.allowed_networks,
            allow_loopback=service.development,
            timeout=settings.timeout_seconds,
        )

    def close(self) -> None:
        """Close the database's connections, and send the remaining spans."""
        self._close_traces()
        self.database.close()


def _configured_account(account: WiredAccount, public_url: str) -> ConfiguredAccount:
    budget = budget_of(account.settings, account.provider)
    return ConfiguredAccount(
        name=account.name,
        provider=account.provider.name,
        environment=account.settings.environment,
        webhook_url=f"{public_url}/webhooks/{account.name}",
        default_kind=account.provider.default_kind,
        lifecycles=account.provider.lifecycles,
        configuration=tuple(_flat(account.settings.model_dump(mode="json"))),
        keys=tuple(VerifyingKey(key.id, key.not_before, key.not_after) for key in account.settings.webhook_keys),
        budget=None if budget is None else (budget.requests, budget.seconds),
        window=(account.settings.window_past_seconds, account.settings.window_future_seconds),
        authentication=account.provider.authentication,
        capabilities={call.value: sorted(kinds) for call, kinds in account.provider.capabilities().items() if kinds},
    )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield settings as lines: the full name, and the value as it may be shown."""
    if isinstance(value, dict):
        for key, under in value.items():
            yield from _flat(under, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for at, under in enumerate(value):
            yield from _flat(under, f"{name}.{at}")
    else:
        yield name, "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_terminal(provider: Provider, kind: str, state: str | None) -> bool:
    return provider.lifecycles[kind].is_terminal(state)


def retention(service: Service) -> Retention:
    """Build the retention by the rules of the settings."""
    return Retention(service.database, service.settings.retention.rules(), service.clock)


def housekeeping(service: Service) -> Housekeeping:
    """Build the housekeeping of partitions and retention."""
    return Housekeeping(service.database, service.settings.retention.period(), retention(service), service.clock)
