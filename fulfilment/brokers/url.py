"""Broker URLs: parsed once, refused where effects or a password could be exposed."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from fulfilment.errors import InsecureSinkUrl, InvalidSink
from fulfilment.network import LOOPBACK, Network, is_loopback

#: For each kind of broker, its schemes: whether it is TLS, and the usual port.
SCHEMES: Final = {
    "nats": {"nats": (False, 4222), "tls": (True, 4222)},
    "rabbitmq": {"amqp": (False, 5672), "amqps": (True, 5671)},
    "kafka": {"kafka": (False, 9092), "kafka+ssl": (True, 9093)},
    "redis": {"redis": (False, 6379), "rediss": (True, 6379)},
}
_SEVERAL: Final = ("nats", "kafka")  #: kinds whose URL may name several servers
_SASL: Final = ("plain", "scram-sha-256", "scram-sha-512")
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]+", re.ASCII)
_NETWORKS: Final = "without TLS only loopback and fulfilment.allowed_networks may be sent to"


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Address and credentials of a broker; a repr holds neither password nor user."""

    kind: str
    scheme: str
    is_secure: bool  #: everything is encrypted, and the server proves its name
    servers: tuple[tuple[str, int], ...]
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    path: str = ""  #: the virtual host of RabbitMQ, the database number of Redis
    sasl: str = "plain"  #: of Kafka

    def with_hosts(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """Return a URL without credentials for each server, at another host."""
        return tuple(
            f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{port}{f'/{self.path}' if self.path else ''}"
            for host, (_, port) in zip(hosts, self.servers, strict=True)
        )

    def hosts(self) -> tuple[str, ...]:
        """Return the servers' hosts, in their order."""
        return tuple(host for host, _ in self.servers)


def read(kind: str, text: str) -> BrokerUrl:
    """Parse the URL of a broker of this kind.

    Raises InvalidSink, whose message repeats none of it.
    """
    known = SCHEMES[kind]
    wanted = " or ".join(f"{scheme}://" for scheme in known)
    try:
        parts = urlsplit(text)
        if parts.scheme not in known or parts.fragment:
            raise ValueError
        is_secure, port = known[parts.scheme]
        credentials, at, places = parts.netloc.rpartition("@")
        user, colon, password = credentials.partition(":")
        servers = tuple(_server(place, port) for place in places.split(","))
        url = BrokerUrl(
            kind,
            parts.scheme,
            is_secure,
            servers,
            unquote(user) if at else None,
            unquote(password) if colon else None,
            _path(kind, parts.path),
            _mechanism(kind, parts),
        )
    except ValueError:
        raise InvalidSink(f"the URL of a {kind} sink is {wanted}, host and port", param="url") from None
    if len(servers) > 1 and kind not in _SEVERAL:
        raise InvalidSink(f"the URL of a {kind} sink names one server", param="url")
    if kind == "kafka" and user and not colon:
        raise InvalidSink("the URL of a kafka sink has a user without a password", param="url")
    return url


def require_protected(url: BrokerUrl, allowed: Sequence[Network]) -> None:
    """Raise InsecureSinkUrl without TLS, except for loopback and `allowed` networks.

    A name other than localhost passes where any network is allowed: where it leads is looked up, and checked, each
    time that a connection is made.
    """
    if url.is_secure:
        return
    for host in url.hosts():
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            is_permitted = is_loopback(host) or bool(allowed)
        else:
            is_permitted = any(address in network for network in (*LOOPBACK, *allowed))
        if not is_permitted:
            secure = next(scheme for scheme, (is_secure, _) in SCHEMES[url.kind].items() if is_secure)
            raise InsecureSinkUrl(f"{_NETWORKS}; give a {secure}:// URL", param="url")


def _server(place: str, usual: int) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    if not parts.hostname or not _HOST.fullmatch(parts.hostname) or parts.path or parts.query:
        raise ValueError
    return parts.hostname, parts.port or usual


def _path(kind: str, path: str) -> str:
    rest = path.removeprefix("/")
    if kind == "rabbitmq":
        return quote(unquote(rest), safe="")
    if rest and (kind != "redis" or not rest.isdecimal()):
        raise ValueError
    return rest


def _mechanism(kind: str, parts: SplitResult) -> str:
    if not parts.query:
        return "plain"
    [(name, value)] = parse_qsl(parts.query, strict_parsing=True)
    if kind != "kafka" or name != "sasl" or value not in _SASL:
        raise ValueError
    return value


def secrets_in(text: str) -> set[str]:
    """Return the secrets of a broker's URL, encoded and decoded. Never raises."""
    credentials, at, _ = text.partition("://")[2].rpartition("@")
    user, colon, password = credentials.partition(":")
    # A user alone is a token of NATS.
    hidden = (password if colon else user) if at else ""
    return {value for value in (hidden, unquote(hidden)) if value}
