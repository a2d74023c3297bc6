"""Which addresses are public, and what one bad address does."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulfilment.errors import AddressRefused
from fulfilment.network import check_addresses, is_public

PUBLIC = ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "2001:4860:4860::8888", "64:ff9b::5db8:d70e"]
PRIVATE = [
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%2",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address):
    assert check_addresses([address]) == [address]


@pytest.mark.parametrize("address", PRIVATE)
def test_private(address):
    with pytest.raises(AddressRefused):
        check_addresses([address])


@pytest.mark.parametrize("text", ["", "localhost", "2130706433", "0177.0.0.1", "127.1", "1.1.1.1/32"])
def test_not_an_address(text):
    with pytest.raises(AddressRefused):
        check_addresses([text])


def test_no_address():
    with pytest.raises(AddressRefused):
        check_addresses([])


@given(good=st.lists(st.sampled_from(PUBLIC)), bad=st.sampled_from(PRIVATE), data=st.data())
def test_one_bad_address_condemns_all(good, bad, data):
    """Wherever a private address stands among public ones, all are refused."""
    mixed = data.draw(st.permutations([*good, bad]))
    with pytest.raises(AddressRefused):
        check_addresses(mixed)


@given(st.ip_addresses(v=4))
def test_inside_ipv6(address):
    """An IPv4 address is judged the same when it is written inside an IPv6 one."""
    mapped = f"::ffff:{address}"
    translated = ipaddress.IPv6Address((0x64FF9B << 96) | int(address))
    assert is_public(translated) == is_public(address)
    if is_public(address):
        assert check_addresses([mapped]) == [str(address)]
    else:
        with pytest.raises(AddressRefused):
            check_addresses([mapped])


def test_allowed_network():
    allowed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]
    assert check_addresses(["10.1.2.3", "fd00::1", "::ffff:10.1.2.3", "1.1.1.1"], allowed) == [
        "10.1.2.3",
        "fd00::1",
        "10.1.2.3",
        "1.1.1.1",
    ]
    with pytest.raises(AddressRefused):
        check_addresses(["10.2.0.1"], allowed)
    with pytest.raises(AddressRefused):
        check_addresses(["1.1.1.1"], allowed, only_allowed=True)
