"""Models of the settings: every name, default, bound and description."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from fulfilment.apprise_sink import secrets_in as secrets_in_alarm
from fulfilment.brokers.url import secrets_in as secrets_in_url
from fulfilment.contract import EMAIL_DEFAULT_PATTERNS, EffectFilter
from providers.catalogue import PROVIDERS
from providers.contract import Budget, Provider
from providers.errors import InsecureUrl
from providers.http import require_https
from providers.signing import Key, KeyRing, Window
from receipted.errors import SettingFault
from receipted.settings.secrets import Secret, SecretReader, checked_secret
from statemachine.phases import ConflictPolicy
from storage.partitions import Period
from storage.postgresql_url import secrets_in
from storage.retention import Rules
from storage.types import RetentionRule


def _network(value: Any) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        if isinstance(value, str):
            return ip_network(value)
    except ValueError:
        pass  # one message for everything that is none
    raise ValueError("Input should be a network such as 10.0.0.0/8, with no bits beyond its length") from None


Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network), PlainSerializer(str, return_type=str)]


#: Marks a setting that has no default. The model lets it be absent so that the checks can report it with all the rest.
REQUIRED: Final[dict[str, JsonValue]] = {"required": True}


class Section(BaseModel):
    """Section of the settings: immutable, refuses unknown names, never echoes input."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class TokenKey(Section):
    """Key of callback and return tokens."""

    id: str = Field("", description="names the key; may be shown", json_schema_extra=REQUIRED)
    secret: Secret = Field(
        default_factory=Secret.missing,
        description="a reference, env:NAME or file:path, to at least 16 bytes",
        json_schema_extra=REQUIRED,
    )


class WebhookKey(TokenKey):
    """Key that verifies an account's deliveries, from `not_before` until `not_after`."""

    not_before: AwareDatetime | None = Field(None, description="the first instant at which the key verifies")
    not_after: AwareDatetime | None = Field(None, description="the instant from which the key no longer verifies")

    def key(self) -> Key:
        """Return the key for verifiers: the secret's literal text in UTF-8."""
        return Key(self.id, self.secret.reveal().encode(), self.not_before, self.not_after)


class BudgetSettings(Section):
    """Request budget of an account: requests in a number of seconds."""

    requests: int = Field(ge=1, description="how many requests may be sent")
    seconds: float = Field(gt=0, description="in how many seconds")


class AccountSettings(Section):
    """One account at one provider."""

    provider: str = Field("", description="which provider the account is at", json_schema_extra=REQUIRED)
    environment: Literal["live", "test"] = Field(
        "live",
        description="live, or test for a provider's sandbox: which API keys reach it, and what bodies must say",
    )
    base_url: str | None = Field(None, description="where the provider is called, when not at its usual URL")
    secrets: dict[str, Secret] = Field(
        default_factory=dict, description="what the provider's client needs, by name", json_schema_extra=REQUIRED
    )
    webhook_keys: tuple[WebhookKey, ...] = Field(
        (), description="the keys that verify deliveries; several while a key is rotated", json_schema_extra=REQUIRED
    )
    window_past_seconds: float = Field(300, ge=0, description="how many seconds old a delivery's signed time may be")
    window_future_seconds: float = Field(
        300, ge=0, description="how many seconds ahead a delivery's signed time may be"
    )
    budget: BudgetSettings | None = Field(
        None, description="requests in seconds that may be sent, when not the provider's documented limit"
    )
    conflicts: Literal["review", "trust_provider"] = Field(
        "review", description="what happens when the provider, asked, confirms a conflict: review or trust_provider"
    )
    partial_capture: Literal["review", "accept"] = Field(
        "review", description="what happens when less was captured than asked for: review, or accept it as paid"
    )
    tolerance_minor: int = Field(
        0, ge=0, le=1_000_000, description="by how many minor units money may differ from what was asked for"
    )
    unknown_payments: Literal["adopt", "park"] = Field(
        "adopt", description="what happens to an event of a payment that was not created here: adopt or park"
    )
    believes: Literal["push", "answers"] = Field(
        "push",
        description="whose word moves payments: push, what deliveries say; or answers, so that a delivery is only a "
        "reason to ask",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the provider's own options, by name")
    accept_unproved: bool = Field(
        False, description="whether it may be live although nothing from outside proves its provider's page"
    )

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str | None) -> str | None:
        return value.rstrip("/") if value is not None else None

    def keyring(self) -> KeyRing:
        """Return the keys that verify this account's deliveries, in configured order."""
        return KeyRing(tuple(key.key() for key in self.webhook_keys))

    def window(self) -> Window:
        """Return how far a delivery's timestamp may be from the time of receipt."""
        return Window(timedelta(seconds=self.window_past_seconds), timedelta(seconds=self.window_future_seconds))

    def configured_budget(self) -> Budget | None:
        """Return the configured budget; None where the provider's documented one applies."""
        return Budget(self.budget.requests, self.budget.seconds) if self.budget else None

    def conflict_policy(self) -> ConflictPolicy:
        """Return the policy for a confirmed conflict."""
        return ConflictPolicy(self.conflicts)

    def revealed_secrets(self) -> dict[str, str]:
        """Return the secrets of the provider's client by name."""
        return {name: secret.reveal() for name, secret in self.secrets.items()}

    def has_active_key(self, now: datetime) -> bool:
        """Return whether any key can verify a delivery now."""
        return any(True for _ in self.keyring().active(now))


class ApiSettings(Section):
    """The REST API for your programs."""

    enabled: bool = Field(True, description="whether /v1, /openapi.json and /docs are served")
    requests_per_second: float = Field(
        50, ge=0.001, le=100_000, description="requests a second that each API key may send, to all processes together"
    )
    burst: int = Field(200, ge=1, le=1_000_000, description="requests that it may send at once after a rest")
    waiting: int = Field(100, ge=1, description="how many readers may wait for events at once, per process")


class ConsoleSettings(Section):
    """The console for people."""

    enabled: bool = Field(True, description="whether /console is served")
    idle_seconds: int = Field(28_800, ge=60, le=604_800, description="seconds without use after which a session ends")
    longest_seconds: int = Field(
        86_400, ge=60, le=2_592_000, description="seconds after which a session ends however much it is used"
    )
    attempts_per_name: int = Field(
        10,
        ge=1,
        le=1000,
        description="log-ins with one name that may fail within the window, from one network or in one known browser",
    )
    attempts_per_network: int = Field(
        50,
        ge=1,
        le=100_000,
        description="log-ins from one network (IPv4 /24, IPv6 /56) that may fail within the window",
    )
    attempts_everywhere: int = Field(
        100,
        ge=1,
        le=100_000,
        description="log-ins with one name that may fail within the window from all networks, known browsers aside",
    )
    attempts_window_seconds: int = Field(
        900,
        ge=10,
        le=86_400,
        description="the window of these log-ins in seconds, which is also how long to wait at most",
    )
    require_second_factor: bool = Field(
        False, description="whether everybody has to set up a second factor before anything else"
    )


class OidcSettings(Section):
    """Log-in of people at an OpenID Connect provider."""

    issuer: str | None = Field(None, description="the provider's https:// issuer URL; people may log in there with it")
    client_id: str = Field("", description="what the provider calls this service")
    client_secret: Secret | None = Field(None, description="the client's secret at the provider: env:NAME or file:path")
    name_claim: str = Field("preferred_username", min_length=1, description="the claim that a new person is named by")
    role_claim: str = Field("groups", min_length=1, description="the claim that gives roles")
    viewers: tuple[str, ...] = Field((), description="values of that claim that make a viewer")
    operators: tuple[str, ...] = Field((), description="values of that claim that make an operator")
    admins: tuple[str, ...] = Field((), description="values of that claim that make an admin")


class FulfilmentSettings(Section):
    """Delivery of effects to sinks."""

    schedule_seconds: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 36_000, 36_000, 36_000),
        description="seconds before each further attempt; after the last the effect is dead",
    )
    timeout_seconds: float = Field(15, gt=0, description="seconds that a sink may take to answer")
    concurrency: int = Field(32, ge=1, description="how many effects are under way at once at each sink")
    allowed_networks: tuple[Network, ...] = Field(
        (), description="private networks that an HTTP sink may live in, and a broker without TLS"
    )


_REFERENCES: Final = frozenset({"env", "file", "plain"})


def _parse_url(value: Any, info: ValidationInfo) -> Secret:
    """Parse a URL, or read it from a reference, as a broker's may hold a password."""
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")  # noqa: TRY004 - pydantic takes no other for a fault
    if value.partition(":")[0] not in _REFERENCES:
        return checked_secret(value, reference=masked_url(value))
    reader = info.context if isinstance(info.context, SecretReader) else SecretReader()
    return reader.read(value)


def _reference(secret: Secret | None) -> str | None:
    return secret.reference if secret is not None else None


SecretUrl = Annotated[Secret, PlainValidator(_parse_url)]


class SinkSettings(Section):
    """One sink that effects are delivered to."""

    name: str = Field("", description="names the sink", json_schema_extra=REQUIRED)
    kind: Literal["http", "python", "nats", "rabbitmq", "kafka", "redis", "email", "apprise"] = Field(
        "http",
        description="http (a signed webhook), python (a callable), nats, rabbitmq, kafka, redis, email, or apprise",
    )
    effects: tuple[str, ...] | None = Field(
        None,
        description="what the sink receives, as names or patterns such as payment.*; "
        "else all, or alarms (email, apprise)",
    )
    url: SecretUrl | None = Field(
        None,
        description="https:// (http), smtps:// or smtp:// (email), or a broker's; env:NAME or file:path for one with "
        "a password, and for apprise",
    )
    secrets: tuple[Secret, ...] = Field(
        (), description="of http, which needs one, or a broker: whsec_ keys as env:NAME or file:path; all sign"
    )
    destination: str | None = Field(
        None,
        description="of a broker: the subject's beginning (nats), exchange (rabbitmq), topic (kafka) or stream (redis)",
    )
    authorities: Secret | None = Field(
        None, description="of a broker or email: file:path of certificates in PEM, trusted instead of the system's"
    )
    handler: str | None = Field(None, description="of a python sink: an entry point's name, or module:function")
    username: Secret | None = Field(None, description="of email, with password: env:NAME or file:path")
    password: Secret | None = Field(None, description="of email: env:NAME or file:path")
    sender: str | None = Field(None, description="of email: the address that the messages are from")
    recipients: tuple[str, ...] = Field((), description="of email: the addresses that the messages go to")

    @field_serializer("url")
    def _shown_url(self, value: Secret | None) -> str | None:
        return _reference(value)

    @property
    def is_url_written(self) -> bool:
        """True if the URL is in the settings themselves, instead of a reference to it."""
        return self.url is not None and self.url.reference.partition(":")[0] not in _REFERENCES

    def every_secret(self) -> Iterator[tuple[str, Secret]]:
        """Yield every secret of the sink with the name of its setting."""
        yield from ((f"secrets.{at}", secret) for at, secret in enumerate(self.secrets))
        if self.url is not None and not self.is_url_written:
            yield "url", self.url
        for name, secret in (("username", self.username), ("password", self.password)):
            if secret is not None:
                yield name, secret

    def takes(self) -> EffectFilter:
        """Return the filter of effects that the sink takes."""
        if self.effects is not None:
            return EffectFilter(self.effects)
        return EffectFilter(EMAIL_DEFAULT_PATTERNS) if self.kind in ("email", "apprise") else EffectFilter()

    def url_text(self) -> str:
        """Return the URL, wherever it was read from; empty where none was given."""
        return self.url.reveal() if self.url is not None else ""


def masked_url(url: str) -> str:
    """Mask the credentials and query values of a URL; all servers of it are shown."""
    start, found, rest = url.partition("://")
    if not found:
        return f"{url.partition(':')[0]}:***"
    before, _, query = rest.partition("?")
    credentials, at, shown = before.rpartition("@")  # a password may hold a / or # that was not written with %
    if not at and "@" in query:
        return f"{start}://***"
    names = "&".join(f"{pair.partition('=')[0]}=***" for pair in query.partition("#")[0].split("&")) if query else ""
    return f"{start}://{'***@' if credentials else ''}{shown.partition('#')[0]}{'?' + names if names else ''}"


class MetricsSettings(Section):
    """Metrics for Prometheus, and probes."""

    enabled: bool = Field(True, description="whether /metrics, /healthz and /readyz are answered")
    token: Secret | None = Field(
        None, description="what /metrics is asked with, as a bearer token: env:NAME or file:path, of at least 16 bytes"
    )
    allowed_networks: tuple[Network, ...] = Field(
        (), description="networks that may ask besides loopback and trusted_proxies, over plain HTTP too"
    )
    worker_host: str = Field("127.0.0.1", min_length=1, description="the address at which receipted worker answers")
    worker_port: int | None = Field(
        None, ge=0, le=65535, description="the port at which receipted worker answers; 0 takes a free one"
    )
    fresh_seconds: float = Field(
        5, ge=0, le=300, description="seconds for which figures of the database are reused before they are read again"
    )
    stalled_after_seconds: float = Field(
        600, ge=30, description="seconds without a step of a loop after which the process does not live"
    )
    lag_after_seconds: float = Field(
        300, gt=0, description="age of the oldest undecided message at which a worker is not ready"
    )


class RetentionSettings(Section):
    """Retention of data, and the time partitions of PostgreSQL's tables."""

    partition: Literal["month", "week", "day"] = Field(
        "month", description="how long one of PostgreSQL's time partitions lasts: month, week or day"
    )
    bodies_after_days: int | None = Field(
        None, ge=1, description="days after which a message's body is emptied, where nothing needs it any more"
    )
    attempts_after_days: int | None = Field(None, ge=1, description="days after which delivery attempts go")
    inbox_after_days: int | None = Field(
        None, ge=30, description="days after which whole messages go, by partition; on PostgreSQL alone"
    )
    history_after_days: int | None = Field(
        None, ge=30, description="days after which transitions go, by partition; on PostgreSQL alone"
    )
    known_after_days: int | None = Field(
        None, ge=30, description="days after which a delivery that comes again is a new message"
    )
    rejected_after_days: int | None = Field(None, ge=1, description="days after which rejected deliveries go")
    reconciliations_after_days: int | None = Field(
        None, ge=1, description="days after which reports of reconciliations go, but for each account's last"
    )
    detached: Literal["keep", "drop"] = Field(
        "keep", description="what becomes of a partition that was detached: keep it as a table, or drop it"
    )
    rows_per_second: float = Field(1000, gt=0, le=100_000, description="rows that retention looks at in a second")
    batch: int = Field(500, ge=1, le=10_000, description="rows of one transaction of it")

    def period(self) -> Period:
        """Return the length of a partition."""
        return Period(self.partition)

    def rules(self) -> Rules:
        """Return the rules of retention that are set."""
        days = {rule: getattr(self, f"{rule.value}_after_days") for rule in RetentionRule}
        return Rules(
            {rule: after for rule, after in days.items() if after is not None},
            drops=self.detached == "drop",
            batch=self.batch,
            rows_per_second=self.rows_per_second,
        )


TRACING_EXTRA: Final = 'install receipted with the extra tracing: pip install "receipted[tracing]"'


class TracingSettings(Section):
    """Traces for OpenTelemetry."""

    endpoint: str | None = Field(
        None,
        description="the URL at which a collector takes traces by OTLP over HTTP: https://, or http:// on loopback",
    )
    headers: Secret | None = Field(
        None, description='what the collector is sent besides, as "name=value,name=value": env:NAME or file:path'
    )
    share: float = Field(0.01, ge=0, le=1, description="the share of inbox messages whose traces are sent")
    trust_incoming: bool = Field(
        False, description="whether a delivery's own traceparent is linked to; for where a proxy of yours sets it"
    )
    service_name: str = Field("receipted", min_length=1, max_length=100, description="the service name of the spans")

    def header_values(self) -> Mapping[str, str]:
        """Parse the headers by name; raises ValueError for anything else."""
        return {} if self.headers is None else _parse_headers(self.headers.reveal())


def is_tracing_installed() -> bool:
    """Return whether the extra `tracing` is installed."""
    try:
        wanted = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
        return all(find_spec(name) is not None for name in wanted)
    except ImportError:
        return False


def tracing_faults(tracing: TracingSettings) -> Iterator[SettingFault]:
    """Yield faults that types cannot express, without the text of the headers."""
    if tracing.endpoint is not None:
        if not is_tracing_installed():
            yield SettingFault("tracing.endpoint", "is set, and OpenTelemetry is missing", TRACING_EXTRA)
        try:
            parts = urlsplit(require_https(tracing.endpoint, allow_loopback=True))
            _ = parts.port  # raises ValueError where it is no number
            is_place = not (parts.query or parts.fragment or parts.username)
        except (InsecureUrl, ValueError):
            is_place = False
        if not is_place:
            remedy = (
                'give one such as "https://collector.example.com/v1/traces", or http:// on loopback; without a query'
            )
            yield SettingFault("tracing.endpoint", "is no URL that traces may be sent to", remedy)
    yield from _headers_fault(tracing)


def _headers_fault(tracing: TracingSettings) -> Iterator[SettingFault]:
    headers = tracing.headers
    if headers is None:
        return
    if headers.problem:
        yield SettingFault("tracing.headers", headers.problem, headers.remedy)
        return
    try:
        tracing.header_values()
    except ValueError:
        remedy = 'give "name=value", with commas between several and %2C for a comma in a value'
        yield SettingFault("tracing.headers", f"({headers.reference}) holds no headers", remedy)


def _parse_headers(text: str) -> Mapping[str, str]:
    """Parse headers as the OpenTelemetry Protocol Exporter's specification has them.

    See "Specifying headers via environment variables" there.
    """
    found: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        name, value = name.strip(), unquote(value.strip())
        if not equals or not name or not (name + value).isascii() or not (name + value).isprintable() or " " in name:
            raise ValueError("not a header")
        found[name] = value
    return found


class ServiceSettings(Section):
    """The web process, and settings that all processes share."""

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
        """Return id and secret of each token key: the first signs, all verify."""
        return tuple((key.id, key.secret.reveal()) for key in self.token_keys)

    def audit_secrets(self) -> tuple[tuple[str, bytes], ...]:
        """Return id and secret of each audit key: the first seals, all verify."""
        return tuple((key.id, key.secret.reveal().encode()) for key in self.audit_keys)


class LogSettings(Section):
    """Level, format and sampling of the log."""

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
    """Polling of payments about which no webhook comes."""

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
    journal_seconds: float = Field(
        15, gt=0, description="seconds between two looks at the events that a provider has logged, where it lists them"
    )
    hint_asks: int = Field(50, ge=1, description="how many payments one hint about a whole account asks about")
    create_grace_seconds: float = Field(
        120, gt=0, description="seconds that a create call may be without an answer before its payment needs review"
    )
    concurrency: int = Field(8, ge=1, description="how many polls run at once")


class ReconciliationSettings(Section):
    """Comparison of all of a provider's payments with those known here."""

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
        description="how many seconds back a reconciliation looks, where no start is given",
    )
    grace_seconds: float = Field(
        300,
        ge=0,
        le=31_536_000,
        description="seconds within which a change raises no alarm: a webhook may be about to report it",
    )
    concurrency: int = Field(4, ge=1, description="how many fetches of a reconciliation run at once")


class PushSettings(Section):
    """Measurement of the quality of the providers' webhooks."""

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
    """Processing of the inbox."""

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
    """All settings of the application; made by load() or parse(), which validate them."""

    service: ServiceSettings = Field(ServiceSettings(), description="the web process, and what is shared")
    log: LogSettings = Field(LogSettings(), description="what is logged, and how")
    poller: PollerSettings = Field(PollerSettings(), description="when a silent payment is asked about")
    reconciliation: ReconciliationSettings = Field(
        ReconciliationSettings(), description="when everything is compared with what the provider has"
    )
    push: PushSettings = Field(PushSettings(), description="how it is measured what push is worth")
    api: ApiSettings = Field(ApiSettings(), description="the REST API for programs of yours")
    console: ConsoleSettings = Field(ConsoleSettings(), description="the pages for people")
    oidc: OidcSettings = Field(OidcSettings(), description="log-in of people at an OpenID Connect provider")
    metrics: MetricsSettings = Field(MetricsSettings(), description="metrics for Prometheus, and probes")
    tracing: TracingSettings = Field(TracingSettings(), description="traces for OpenTelemetry")
    worker: WorkerSettings = Field(WorkerSettings(), description="how the inbox is worked through")
    retention: RetentionSettings = Field(RetentionSettings(), description="how long what is kept is kept")
    fulfilment: FulfilmentSettings = Field(FulfilmentSettings(), description="how effects are delivered")
    sinks: tuple[SinkSettings, ...] = Field((), description="where effects go", json_schema_extra=REQUIRED)
    accounts: dict[str, AccountSettings] = Field(
        default_factory=dict, description="the provider accounts, by name", json_schema_extra=REQUIRED
    )
    providers: tuple[str, ...] = Field(
        (), description="pages of further providers, such as file:pages/acme.toml; paths start at the file's folder"
    )
    _provider_types: Mapping[str, type[Provider]] = PrivateAttr(default_factory=lambda: PROVIDERS)

    def provider_types(self) -> Mapping[str, type[Provider]]:
        """Return the providers that accounts may name."""
        return self._provider_types

    def with_providers(self, providers: Mapping[str, type[Provider]]) -> Self:
        """Return the settings with these providers; they are immutable otherwise."""
        self._provider_types = providers
        return self

    def secrets(self) -> Iterator[tuple[str, Secret]]:
        """Yield every secret with the full name of its setting."""
        for at, token_key in enumerate(self.service.token_keys):
            yield f"service.token_keys.{at}.secret", token_key.secret
        for at, audit_key in enumerate(self.service.audit_keys):
            yield f"service.audit_keys.{at}.secret", audit_key.secret
        if self.metrics.token is not None:
            yield "metrics.token", self.metrics.token
        if self.oidc.client_secret is not None:
            yield "oidc.client_secret", self.oidc.client_secret
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
        """Yield every value that must never be shown, for redaction.register_secrets()."""
        # a user's name may be an ordinary word, without which a log could not be read
        yield from (secret.reveal() for setting, secret in self.secrets() if not setting.endswith(".username"))
        yield from secrets_in(self.service.database)
        for sink in self.sinks:
            yield from (secrets_in_alarm if sink.kind == "apprise" else secrets_in_url)(sink.url_text())
