"""The settings as a model: every name, default, bound and one line about each."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, field_serializer, field_validator

from fulfilment.brokers.url import secrets_in as secrets_in_url
from receipted.secrets import Secret
from receipted.settings_accounts import REQUIRED, AccountSettings, Section, TokenKey
from receipted.settings_api import ApiSettings
from receipted.settings_console import ConsoleSettings
from receipted.settings_fulfilment import FulfilmentSettings, SinkSettings, masked_url
from receipted.settings_metrics import MetricsSettings
from receipted.settings_network import Network
from receipted.settings_retention import RetentionSettings
from receipted.settings_tracing import TracingSettings
from storage.postgresql_url import secrets_in


class ServiceSettings(Section):
    """The web process, and what all processes share."""

    database: str = Field("sqlite:///var/receipted.db", description="URL of the SQLite file or PostgreSQL database")
    public_url: str = Field(
        "", description="the https:// URL at which providers and payers reach this service", json_schema_extra=REQUIRED
    )
    listen_host: str = Field("127.0.0.1", min_length=1, description="the address to listen at")
    listen_port: int = Field(8000, ge=0, le=65535, description="the port to listen at; 0 takes a free one")
    development: bool = Field(
        False, description="permits plain HTTP on loopback and plain: secrets; never in production"
    )
    trusted_proxies: tuple[Network, ...] = Field((), description="networks of proxies whose X-Forwarded-Proto counts")
    body_limit_bytes: int = Field(262_144, ge=1024, description="the largest body that a delivery may have")
    body_timeout_seconds: float = Field(10, gt=0, description="seconds that a body may take to arrive")
    unverified_per_minute: int = Field(
        60, ge=1, description="deliveries a minute that may fail verification, per client and account"
    )
    quarantine_per_account: int = Field(1000, ge=1, description="how many rejected deliveries are kept per account")
    intake_queue: int = Field(10_000, ge=1, description="how many requests may wait for the database at once")
    stop_timeout_seconds: float = Field(
        25, gt=0, le=600, description="seconds that a process may take to stop in order before it ends all the same"
    )
    token_keys: tuple[TokenKey, ...] = Field(
        (), description="keys of callback and return tokens: the first signs, all verify", json_schema_extra=REQUIRED
    )
    audit_keys: tuple[TokenKey, ...] = Field(
        (), description="keys that seal what is kept, so that the audit finds forged rows: the first seals, all verify"
    )
    audit_keyed_since: AwareDatetime | None = Field(
        None,
        description="rows of before this instant may be sealed without a key: when audit_keys came later than rows",
    )
    audit_retired_key_ids: tuple[str, ...] = Field(
        (),
        description='webhook keys that are not configured any more and may be named by old messages: "account/key id"',
    )

    @field_validator("public_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_serializer("database")
    def _masked_database(self, value: str) -> str:
        return masked_url(value)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked_url(value) if name == "database" else value

    def token_secrets(self) -> tuple[tuple[str, str], ...]:
        """Id and secret of each token key: the first signs, all verify."""
        return tuple((key.id, key.secret.reveal()) for key in self.token_keys)

    def audit_secrets(self) -> tuple[tuple[str, bytes], ...]:
        """Id and secret of each audit key: the first seals, all verify."""
        return tuple((key.id, key.secret.reveal().encode()) for key in self.audit_keys)


class LogSettings(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least severe level that is logged: debug, info, warning or error"
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="lines for machines (json), for people (console), or by whether stderr is a terminal (auto)"
    )
    sample_above: int = Field(
        50, ge=1, description="how many lines of ordinary work a second are all written, of each event"
    )
    sample_every: int = Field(1000, ge=1, description="beyond that, how many lines one line stands for")


class PollerSettings(Section):
    """When a silent payment is asked about."""

    worth_seconds: float = Field(
        2,
        gt=0,
        description="expected seconds of not knowing of a change that justify a question, where the budget has room",
    )
    soonest_seconds: float = Field(5, gt=0, description="the shortest wait between two questions about one payment")
    longest_seconds: float = Field(
        43_200, gt=0, description="the longest wait between two questions about an open payment, in seconds"
    )
    paid_every_seconds: float = Field(
        86_400,
        gt=0,
        description="likewise about a payment that is paid and may still be settled or refunded",
    )
    retry_first_seconds: float = Field(
        15, gt=0, description="seconds after a question that failed until it is asked again; doubles"
    )
    retry_longest_seconds: float = Field(3600, gt=0, description="the longest of these waits")
    give_up_after_seconds: float = Field(
        2_592_000, ge=0, description="age in seconds at which asking ends and a person must look; 0 for never"
    )
    late_checks_seconds: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (3600, 86_400),
        description="ages in seconds at which a payment that ended without money is asked about again",
    )
    hint_asks: int = Field(50, ge=1, description="how many payments one hint about a whole account asks about")
    create_grace_seconds: float = Field(
        120, gt=0, description="seconds that a create call may be without an answer before its payment needs review"
    )
    concurrency: int = Field(8, ge=1, description="how many questions are under way at once")


class ReconciliationSettings(Section):
    """When everything that a provider has is compared with what is known here."""

    every_seconds: float = Field(
        86_400,
        ge=0,
        le=31_536_000,
        description="seconds from one scheduled reconciliation of an account to the next; 0 for none",
    )
    look_back_seconds: float = Field(
        259_200,
        gt=0,
        le=31_536_000,
        description="how many seconds back a reconciliation looks, where nobody says since when",
    )
    grace_seconds: float = Field(
        300,
        ge=0,
        le=31_536_000,
        description="seconds within which a change raises no alarm: a webhook may be about to tell it",
    )
    concurrency: int = Field(4, ge=1, description="how many questions of a reconciliation are under way at once")


class PushSettings(Section):
    """How it is measured what the providers' own sending is worth."""

    measure_every_seconds: float = Field(60, ge=1, description="seconds between two measurements of an account")
    grace_seconds: float | None = Field(
        None,
        gt=0,
        description="seconds after which a push counts as lost, when not twice the account's own p99, 900 to 21,600",
    )
    loss_alarm: float = Field(0.2, gt=0, lt=1, description="the share of lost pushes of a kind that raises an alarm")
    loss_samples: int = Field(20, ge=5, description="how many recent changes of a kind that alarm needs at least")
    unreachable_seconds: float = Field(
        600, ge=60, le=86_400, description="seconds for which no question may be answered until that raises an alarm"
    )


class WorkerSettings(Section):
    """How the inbox is worked through."""

    batch: int = Field(500, ge=1, description="how many messages are claimed at once")
    batches: int = Field(
        2, ge=1, le=8, description="how many batches a process decides at once while more waits; on SQLite always one"
    )
    lease_seconds: float = Field(60, gt=0, description="seconds that a claim lasts before others may take over")
    max_attempts: int = Field(12, ge=1, description="attempts after which a message is dead")
    retry_first_seconds: float = Field(1, gt=0, description="the wait after the first failed attempt, in seconds")
    retry_longest_seconds: float = Field(3600, gt=0, description="the longest wait between attempts, in seconds")
    tick_seconds: float = Field(1, gt=0, description="seconds after which an idle worker looks for work again")


class Settings(Section):
    """Everything that an operator decides. Made by load() or parse(), which refuse what cannot work."""

    service: ServiceSettings = Field(ServiceSettings(), description="the web process, and what is shared")
    log: LogSettings = Field(LogSettings(), description="what is logged, and how")
    poller: PollerSettings = Field(PollerSettings(), description="when a silent payment is asked about")
    reconciliation: ReconciliationSettings = Field(
        ReconciliationSettings(), description="when everything is compared with what the provider has"
    )
    push: PushSettings = Field(PushSettings(), description="how it is measured what push is worth")
    api: ApiSettings = Field(ApiSettings(), description="the REST API for programs of yours")
    console: ConsoleSettings = Field(ConsoleSettings(), description="the pages for people")
    metrics: MetricsSettings = Field(MetricsSettings(), description="metrics for Prometheus, and probes")
    tracing: TracingSettings = Field(TracingSettings(), description="traces for OpenTelemetry")
    worker: WorkerSettings = Field(WorkerSettings(), description="how the inbox is worked through")
    retention: RetentionSettings = Field(RetentionSettings(), description="how long what is kept is kept")
    fulfilment: FulfilmentSettings = Field(FulfilmentSettings(), description="how effects are delivered")
    sinks: tuple[SinkSettings, ...] = Field((), description="where effects go", json_schema_extra=REQUIRED)
    accounts: dict[str, AccountSettings] = Field(
        default_factory=dict, description="the provider accounts, by name", json_schema_extra=REQUIRED
    )

    def secrets(self) -> Iterator[tuple[str, Secret]]:
        """Every secret with the full name of its setting."""
        for at, token_key in enumerate(self.service.token_keys):
            yield f"service.token_keys.{at}.secret", token_key.secret
        for at, audit_key in enumerate(self.service.audit_keys):
            yield f"service.audit_keys.{at}.secret", audit_key.secret
        if self.metrics.token is not None:
            yield "metrics.token", self.metrics.token
        if self.tracing.headers is not None:
            yield "tracing.headers", self.tracing.headers
        for at, sink in enumerate(self.sinks):
            yield from ((f"sinks.{at}.{part}", secret) for part, secret in sink.every_secret())
        for name, account in self.accounts.items():
            for secret_name, secret in account.secrets.items():
                yield f"accounts.{name}.secrets.{secret_name}", secret
            yield from (
                (f"accounts.{name}.webhook_keys.{at}.secret", key.secret) for at, key in enumerate(account.webhook_keys)
            )

    def secret_values(self) -> Iterator[str]:
        """Every value that must never be shown, for redaction.register_secrets()."""
        # a user's name may be an ordinary word, without which a log could not be read
        yield from (secret.reveal() for setting, secret in self.secrets() if not setting.endswith(".username"))
        yield from secrets_in(self.service.database)
        for sink in self.sinks:
            yield from secrets_in_url(sink.place())
