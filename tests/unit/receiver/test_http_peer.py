from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.http import Peer, peer_of

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def scope(client="203.0.113.7", scheme="http", headers=()):
    return {
        "type": "http",
        "client": (client, 1) if client is not None else None,
        "scheme": scheme,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }


def peer(*args, development=False, trusted=TRUSTED, **more):
    return peer_of(scope(*args, **more), trusted, is_development=development)


PROTO = ("x-forwarded-proto", "https")


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, Peer("203.0.113.7", is_secure=False)),
        ({"scheme": "https"}, Peer("203.0.113.7", is_secure=True)),
        ({"headers": [PROTO]}, Peer("203.0.113.7", is_secure=False)),
        ({"client": "10.1.2.3", "headers": [PROTO]}, Peer("10.1.2.3", is_secure=True)),
        ({"client": "::ffff:10.1.2.3", "headers": [PROTO]}, Peer("10.1.2.3", is_secure=True)),
        ({"client": "fd00::1", "headers": [PROTO, ("x-forwarded-for", "1.2.3.4")]}, Peer("1.2.3.4", is_secure=True)),
        ({"client": "10.1.2.3", "headers": [("x-forwarded-for", "1.2.3.4")]}, Peer("1.2.3.4", is_secure=False)),
        (
            {"client": "10.1.2.3", "headers": [PROTO, ("x-forwarded-for", "9.9.9.9"), ("x-forwarded-for", "1.2.3.4")]},
            Peer("1.2.3.4", is_secure=True),
        ),
        (
            {"client": "10.1.2.3", "headers": [PROTO, ("x-forwarded-for", "9.9.9.9, 1.2.3.4, 10.9.9.9")]},
            Peer("1.2.3.4", is_secure=True),
        ),
        (
            {"client": "10.1.2.3", "headers": [PROTO, ("x-forwarded-for", "10.0.0.1, 10.0.0.2")]},
            Peer("10.1.2.3", is_secure=True),
        ),
        ({"client": "::ffff:203.0.113.7"}, Peer("203.0.113.7", is_secure=False)),
        (
            {"client": "10.1.2.3", "headers": [("x-forwarded-for", "[::ffff:203.0.113.7]:4711")]},
            Peer("203.0.113.7", is_secure=False),
        ),
        ({"client": None}, Peer("", is_secure=False)),
        ({"client": "", "headers": [PROTO]}, Peer("", is_secure=False)),
    ],
)
def test_who_is_asking(given_, expected):
    """The nearest address that is not a proxy of ours, and HTTPS by the server's or that proxy's word alone."""
    assert expected == peer(**given_)


@pytest.mark.parametrize("client", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_secure_in_development_only(client):
    """Whichever way this machine is called."""
    assert peer(client, development=True).is_secure
    assert not peer(client).is_secure


@given(st.text(alphabet=st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=200), st.booleans())
def test_no_header_of_an_untrusted_peer_changes_anything(value, development):
    """Whatever it claims."""
    claims = [("x-forwarded-for", value), ("x-forwarded-proto", value), ("forwarded", value)]
    assert Peer("203.0.113.7", is_secure=False) == peer(headers=claims, development=development)


@given(st.text(alphabet=st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=200))
def test_any_header_of_a_trusted_proxy_is_read_without_a_fault(value):
    """An address is at most 64 characters, as its column is."""
    assert len(peer("10.0.0.1", headers=[("x-forwarded-for", value)]).address) <= 64


@given(st.lists(st.ip_addresses().map(str), max_size=5), st.ip_addresses(v=4).filter(lambda a: a not in TRUSTED[0]))
def test_what_a_client_wrote_before_its_own_address_counts_for_nothing(written, own):
    """The proxy appends whom it saw; that is the client, whatever stands before."""
    forwarded = ", ".join([*written, str(own)])
    assert str(own) == peer("10.0.0.1", headers=[("x-forwarded-for", forwarded)]).address
