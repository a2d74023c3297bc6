"""PostgreSQL URLs as libpq reads them: several servers, IPv6, defaults, options.

Source: PostgreSQL's manual, "Connection URIs". What is understood is given to each driver in its own words, so that
both reach the same servers in the same order.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from storage.errors import DatabaseUnsupported

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")
_PORT: Final = 5432

#: A word of ours in the query: connections go through a pooler that gives each client a session of its own
#: (`session`), or each transaction another one (`transaction`).
_POOLER: Final = "pooler"

#: What may stand in a query and must not be shown.
_SECRET: Final = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")

_HOST: Final = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]*))?")


@dataclass(frozen=True, slots=True)
class PostgresqlUrl:
    """The servers of a database and the options of its connections."""

    hosts: tuple[tuple[str, int], ...]  #: name, address or folder of a socket, and port; empty for the driver's default
    user: str | None
    password: str | None
    database: str | None
    options: dict[str, str]  #: libpq's further words, `target_session_attrs` among them
    pooler: str | None = None  #: what a pooler in between hands out: a session, a transaction

    @property
    def is_pooled(self) -> bool:
        """Return whether each transaction may have another session."""
        return self.pooler == "transaction"

    def __repr__(self) -> str:
        return f"PostgresqlUrl(hosts={self.hosts})"  # neither credentials nor options

    def keywords(self) -> dict[str, str]:
        """All of it in libpq's words, as psycopg's `connect` takes them."""
        named = {"user": self.user, "password": self.password, "dbname": self.database}
        if self.hosts:
            named["host"] = ",".join(host for host, _ in self.hosts)
            named["port"] = ",".join(str(port) for _, port in self.hosts)
        return {**self.options, **{name: value for name, value in named.items() if value is not None}}


def is_postgresql(url: str) -> bool:
    """Return whether the URL is one of PostgreSQL."""
    return url.partition("://")[0] in _SCHEMES and "://" in url


def read_url(url: str) -> PostgresqlUrl:
    """Parse the URL; of several servers the writable one is used unless it says else.

    Raises DatabaseUnsupported, without a word of the URL: it may hold a password.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme not in _SCHEMES:
        raise _unreadable("it begins with no postgresql://")
    before, _, query = rest.partition("?")
    authority, _, path = before.partition("/")
    credentials, at, servers = authority.partition("@")
    if not at:
        credentials, servers = "", authority
    user, _, password = credentials.partition(":")
    words = _words(query)
    if "@" in servers or "@" in path:
        raise _unreadable("a password's @ and / are written %40 and %2F")
    hosts = _hosts(servers, words)
    pooler = words.pop(_POOLER, None)
    if pooler not in (None, "session", "transaction"):
        raise _unreadable("pooler is either session or transaction")
    if len(hosts) > 1:
        words.setdefault("target_session_attrs", "read-write")
    return PostgresqlUrl(
        hosts=hosts,
        user=words.pop("user", None) or _decoded(user) or None,
        password=words.pop("password", None) or _decoded(password) or None,
        database=words.pop("dbname", None) or _decoded(path) or None,
        options=words,
        pooler=pooler,
    )


def secrets_in(url: str) -> set[str]:
    """Return every secret part of the URL, as written and decoded. Never raises."""
    _, _, rest = url.partition("://")
    before, _, query = rest.partition("?")
    credentials, at, _ = before.rpartition("@")
    found = {credentials.partition(":")[2]} if at else set()
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if unquote(name) in _SECRET:
            found.add(value)
    return {value for each in found if each for value in (each, unquote(each))}


def _words(query: str) -> dict[str, str]:
    words: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        name = _decoded(name)
        if not name or not equals or "=" in value:
            raise _unreadable("its query is no list of name=value")
        if name in words:
            raise _unreadable("its query says something twice")
        words[name] = _decoded(value)
    if words.get("ssl") == "true":  # as JDBC writes it
        del words["ssl"]
        words["sslmode"] = "require"
    return words


def _hosts(servers: str, words: dict[str, str]) -> tuple[tuple[str, int], ...]:
    """Return the servers of the URL's authority, unless its query names them."""
    named, numbered = words.pop("host", None), words.pop("port", None)
    if not servers and named is None and numbered is None:
        return ()
    written = [_host(each) for each in servers.split(",")]
    names = [name for name, _ in written] if named is None else named.split(",")
    ports = [port for _, port in written] if numbered is None else [_port(each) for each in numbered.split(",")]
    ports = ports * len(names) if len(ports) == 1 else ports
    if len(ports) != len(names):
        raise _unreadable("it does not name one port for each server")
    return tuple((name, port or _PORT) for name, port in zip(names, ports, strict=True))


def _host(text: str) -> tuple[str, int | None]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise _unreadable("a server is written host:port, and an IPv6 address [address]:port")
    return _decoded(found["six"] or found["name"]), _port(found["port"] or "")


def _port(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 65536:
        raise _unreadable("a port is a number from 1 to 65535")
    return int(text)


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _unreadable("what is written with % is no UTF-8") from None
    if "\0" in decoded:
        raise _unreadable("nothing in it may be %00")
    return decoded


def _unreadable(why: str) -> DatabaseUnsupported:
    return DatabaseUnsupported(f"the database's URL cannot be read: {why}", param="database")
