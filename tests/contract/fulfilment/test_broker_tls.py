"""TLS to brokers of a test's own: the certificate and the name are verified, and nothing is sent to anybody else."""

import asyncio
import gc
import ssl
from pathlib import Path

import pytest

from fulfilment.broker_sink import BrokerSink
from fulfilment.contract import Delivered, Failed, Result
from fulfilment.network import tls_context
from tests.contract.fulfilment.test_broker_sink import owed
from tests.support import tls as certificates
from tests.support.broker_servers import NatsServer, RedisServer, Server
from tests.support.clock import START
from tests.support.live_brokers import Redis

NOW = START
USERS = 'authorization { user: "shop", password: "a-pass-word-1" }'


def started(kind: str, folder: Path, name: str) -> tuple[Server, str]:
    """A server that speaks TLS with a certificate for the name, and the authority to trust."""
    issuer = certificates.authority("an authority of tests")
    cert, key = certificates.served(folder, name, issuer)
    server: Server
    if kind == "nats":
        server = NatsServer(folder / "broker")
        server.options = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}\n{USERS}'
    else:
        server = RedisServer(folder / "broker")
        server.options = (
            *("--port", "0", "--tls-port", str(server.port), "--tls-cert-file", cert, "--tls-key-file", key),
            *("--tls-auth-clients", "no", "--requirepass", "a-pass-word-1"),
        )
    server.start()
    (folder / "ca.pem").write_bytes(issuer.pem)
    return server, issuer.pem.decode()


def deliver(kind: str, port: int, authorities: str | None = None, password: str = "a-pass-word-1") -> Result:
    scheme, user = {"nats": ("tls", "shop"), "redis": ("rediss", "")}[kind]
    url = f"{scheme}://{user}:{password}@localhost:{port}"

    async def run() -> Result:
        sink = BrokerSink("shop", kind, url, "payments", authorities=authorities, timeout=5)
        try:
            return await sink.deliver(owed(), NOW)
        finally:
            await sink.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize("kind", ["nats", "redis"])
def test_the_right_server(kind: str, tmp_path: Path) -> None:
    """With its authority trusted, the server is entered with the password and takes the effect."""
    server, authority = started(kind, tmp_path, "localhost")
    try:
        result = deliver(kind, server.port, authorities=authority)
        if kind == "nats":  # entered, and told that there is no stream
            assert result == Failed("no stream takes the subject, or JetStream is not there")
            return
        assert result == Delivered()
        place = Redis(f"rediss://:a-pass-word-1@localhost:{server.port}", ssl_ca_certs=str(tmp_path / "ca.pem"))
        place.destination = "payments"
        [got] = asyncio.run(place.received())
        assert got.body == owed().payload.encode()
    finally:
        server.stop()


# FastStream leaves the socket of a NATS client that was refused to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["nats", "redis"])
def test_the_wrong_password(kind: str, tmp_path: Path) -> None:
    """A server that does not let us in has failed the attempt, in words without the password; it may be mended."""
    server, authority = started(kind, tmp_path, "localhost")
    try:
        result = deliver(kind, server.port, authority, "another-word-2")
        gc.collect()
        assert isinstance(result, Failed)
        assert result.error.startswith("cannot connect (")
        assert not result.is_final
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["nats", "redis"])
@pytest.mark.parametrize("name", ["localhost", "other.example"])
def test_the_wrong_server(kind: str, name: str, tmp_path: Path) -> None:
    """A certificate that nobody vouches for, or for another name, ends the attempt before anything is sent."""
    server, authority = started(kind, tmp_path, name)
    try:
        result = deliver(kind, server.port, authorities=authority if name != "localhost" else None)
        assert isinstance(result, Failed)
        assert result.error.startswith("cannot connect (")
        assert not result.is_final
    finally:
        server.stop()


@pytest.mark.parametrize("user", ["shop:a-pass-word-1@", "a-pass-word-1@", ""])
@pytest.mark.parametrize("is_told_to_enter", [True, False])
def test_nats_that_offers_no_tls(user: str, *, is_told_to_enter: bool) -> None:
    """A server, or somebody in between, that says it has no TLS gets neither password nor effect."""
    heard = bytearray()

    async def run() -> Result:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            auth = b"true" if is_told_to_enter else b"false"
            writer.write(b'INFO {"server_id":"x","version":"2.9.0","max_payload":1048576,"headers":true,')
            writer.write(b'"auth_required":' + auth + b"}\r\n")
            while data := await reader.read(4096):
                heard.extend(data)
                if b"PING" in data:
                    writer.write(b"PONG\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        sink = BrokerSink("shop", "nats", f"tls://{user}localhost:{port}", "payments", timeout=5)
        try:
            return await sink.deliver(owed(), NOW)
        finally:
            await sink.aclose()
            server.close()

    result = asyncio.run(run())
    assert result == Failed("the server does not offer TLS, so that nothing was sent")
    assert b"a-pass-word-1" not in heard
    assert b"Bestellung" not in heard


def test_a_name_is_checked_at_each_connection() -> None:
    """Without TLS a name is looked up by us, every address is checked, and the checked one is connected to."""
    import ipaddress

    asked: list[str] = []
    answers = [["192.0.2.1"], ["127.0.0.1", "8.8.8.8"], ["127.0.0.1"]]

    async def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    async def run() -> list[Result]:
        server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        allowed = [ipaddress.ip_network("10.0.0.0/8")]
        url = f"nats://nats.example:{port}"
        sink = BrokerSink("shop", "nats", url, "payments", allowed_networks=allowed, resolver=resolve, timeout=5)
        try:
            return [await sink.deliver(owed(), NOW) for _ in range(3)]
        finally:
            await sink.aclose()
            server.close()

    first, second, third = asyncio.run(run())
    assert first == second == Failed("the host has an address that is neither public nor allowed")
    assert isinstance(third, Failed)
    assert third.error.startswith("cannot connect (")  # to the address itself: the name leads nowhere
    assert asked == ["nats.example"] * 3


def test_the_context_verifies() -> None:
    """The context of every broker verifies certificates and names."""
    made = tls_context(None)
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert made.minimum_version >= ssl.TLSVersion.TLSv1_2
