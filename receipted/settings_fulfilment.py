"""The settings of how effects are delivered, and where to."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator, ValidationInfo, field_serializer

from fulfilment.takes import OF_EMAIL, Takes
from receipted.secrets import Secret, SecretReader, checked
from receipted.settings_accounts import REQUIRED, Section
from receipted.settings_network import Network


class FulfilmentSettings(Section):
    """How effects are delivered to sinks."""

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


def _place(value: Any, info: ValidationInfo) -> Secret:
    """A URL as it is, or read from where a reference points, since that of a broker may hold a password."""
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")  # noqa: TRY004 - pydantic takes no other for a fault
    if value.partition(":")[0] not in _REFERENCES:
        return checked(value, reference=masked_url(value))
    reader = info.context if isinstance(info.context, SecretReader) else SecretReader()
    return reader.read(value)


def _reference(secret: Secret | None) -> str | None:
    return secret.reference if secret is not None else None


Place = Annotated[Secret, PlainValidator(_place)]


class SinkSettings(Section):
    """Where effects go."""

    name: str = Field("", description="names the sink", json_schema_extra=REQUIRED)
    kind: Literal["http", "python", "nats", "rabbitmq", "kafka", "redis", "email"] = Field(
        "http", description="http (a signed webhook), python (a callable), nats, rabbitmq, kafka, redis, or email"
    )
    effects: tuple[str, ...] | None = Field(
        None,
        description="what the sink is told, as names or patterns such as payment.*; else all, or alarms (email)",
    )
    url: Place | None = Field(
        None,
        description="https:// (http), smtps:// or smtp:// (email), or a broker's, env:NAME or file:path for a password",
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
        """Whether the URL stands in the settings themselves, instead of a reference to it."""
        return self.url is not None and self.url.reference.partition(":")[0] not in _REFERENCES

    def every_secret(self) -> Iterator[tuple[str, Secret]]:
        """Every secret of the sink with the name of its setting."""
        yield from ((f"secrets.{at}", secret) for at, secret in enumerate(self.secrets))
        if self.url is not None and not self.is_url_written:
            yield "url", self.url
        for name, secret in (("username", self.username), ("password", self.password)):
            if secret is not None:
                yield name, secret

    def takes(self) -> Takes:
        """Which effects are owed to the sink."""
        if self.effects is not None:
            return Takes(self.effects)
        return Takes(OF_EMAIL) if self.kind == "email" else Takes()

    def place(self) -> str:
        """The URL, from wherever it was read; empty where none was given."""
        return self.url.reveal() if self.url is not None else ""


def masked_url(url: str) -> str:
    """The URL without the credentials and query values that it may carry; of several servers, all are shown."""
    start, found, rest = url.partition("://")
    if not found:
        return f"{url.partition(':')[0]}:***"
    before, _, query = rest.partition("?")
    credentials, at, shown = before.rpartition("@")  # a password may hold a / or # that was not written with %
    if not at and "@" in query:
        return f"{start}://***"
    names = "&".join(f"{pair.partition('=')[0]}=***" for pair in query.partition("#")[0].split("&")) if query else ""
    return f"{start}://{'***@' if credentials else ''}{shown.partition('#')[0]}{'?' + names if names else ''}"
