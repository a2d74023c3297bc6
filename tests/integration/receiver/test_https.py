"""HTTPS only, and who says so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deliveries import event, sign
from tests.support.serving import Served, serving, settings

PROXY, STRANGER = "127.0.0.2", "127.0.0.1"  # both are loopback on Linux, and different peers


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Served]:
    """Not in development, behind one trusted proxy."""
    with serving(settings(tmp_path, development=False, trusted_proxies=[f"{PROXY}/32"])) as running:
        yield running


@pytest.mark.parametrize(
    ("source", "proto", "status"),
    [
        (PROXY, "https", 200),
        (PROXY, "HTTPS", 200),
        (PROXY, "http, https", 200),
        (PROXY, "https, http", 403),
        (PROXY, "http", 403),
        (PROXY, "", 403),
        (PROXY, None, 403),
        (STRANGER, "https", 403),
        (STRANGER, None, 403),
    ],
)
def test_only_a_trusted_proxy_says_that_it_was_https(
    production: Served, source: str, proto: str | None, status: int
) -> None:
    """X-Forwarded-Proto of anybody else counts for nothing, and of several values the last hop's counts."""
    headers = [] if proto is None else [("X-Forwarded-Proto", proto)]
    answer = production.post(event("sg"), source=source, headers=headers)
    assert status == answer.status
    assert (1 if status == 200 else 0) == len(production.rows())
    if status == 403:
        assert (answer.error["type"], answer.error["code"]) == ("authorization_error", "https_required")


@pytest.mark.parametrize("path", ["/webhooks/sg", "/webhooks/nobody", "/callbacks/x", "/return/x"])
def test_nothing_is_said_without_https(production: Served, path: str) -> None:
    """Not even whether an account or a token exists."""
    answer = production.request("GET", path)
    assert (answer.status, answer.error["code"]) == (403, "https_required")


def test_loopback_counts_as_secure_in_development_only(tmp_path: Path) -> None:
    """Development needs no certificate."""
    with serving(settings(tmp_path)) as running:
        assert running.post(event("sg")).status == 200


def test_a_client_in_development_behind_a_proxy_still_needs_https(tmp_path: Path) -> None:
    """The exemption is for this machine, not for whom a tunnel on this machine forwards."""
    with serving(settings(tmp_path, trusted_proxies=[f"{PROXY}/32"])) as running:
        forwarded = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "http")]
        assert running.post(event("sg"), source=PROXY, headers=forwarded).status == 403


@pytest.mark.parametrize(
    ("source", "forwarded", "client"),
    [
        (PROXY, "198.51.100.9, 203.0.113.7", "203.0.113.7"),
        (PROXY, "203.0.113.7, 127.0.0.2", "203.0.113.7"),
        (PROXY, "203.0.113.7:4711", "203.0.113.7"),
        (PROXY, "[2001:db8::7]:4711", "2001:db8::7"),
        (PROXY, "", PROXY),
        (PROXY, None, PROXY),
        (STRANGER, "203.0.113.7", STRANGER),
    ],
)
def test_the_client_is_whom_the_nearest_trusted_proxy_saw(
    tmp_path: Path, source: str, forwarded: str | None, client: str
) -> None:
    """What a client writes into X-Forwarded-For itself counts for nothing."""
    with serving(settings(tmp_path, trusted_proxies=[f"{PROXY}/32"])) as running:
        headers = [("X-Forwarded-Proto", "https")]
        headers += [] if forwarded is None else [("X-Forwarded-For", forwarded)]
        assert (
            running.post(sign("sg", b"x", secret="wrong-key-wrong-key"), source=source, headers=headers).status == 401
        )
        assert [client] == [kept.client for kept in running.rejected("sg")]
