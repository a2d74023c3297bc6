"""Warnings about settings that work and are still unwise.

`receipted config check` prints them, and every start logs them.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

from receipted.errors import Fault
from receipted.settings_network import Network
from receipted.settings_sections import Settings
from storage.postgresql_url import is_postgresql
from storage.private_files import others_may_read

#: Hours of a delivery's window beyond which it bounds nothing: providers repeat what failed within minutes or hours.
MAX_WINDOW_HOURS: Final = 24

#: Bits of a network's length below which it holds strangers, unless it lies in a private range as a whole.
_MIN_PREFIX: Final = {4: 16, 6: 32}

#: Ranges that no stranger of the internet has an address of. Source: IANA, special-purpose address registries.
_PRIVATE: Final = tuple(
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
)


def exposed(settings: Settings) -> Iterator[Fault]:
    """Secrets in files that others on this machine may read."""
    for setting, secret in settings.secrets():
        if secret.is_exposed:
            file = secret.reference.removeprefix("file:")
            yield Fault(setting, f"is in {file}, which others on this machine may read", f"chmod 600 {file}")


def unwise(settings: Settings) -> Iterator[Fault]:
    """List what is unwise and what would be better, without any secret's value."""
    live = sorted(name for name, account in settings.accounts.items() if account.environment == "live")
    if settings.service.development and live:
        yield Fault(
            "service.development",
            f"is on, and live accounts are configured ({', '.join(live)}): plain HTTP and plain: secrets are permitted",
            'turn it off, or give the accounts environment = "test"',
        )
    if live and not settings.service.audit_keys:
        problem = f"is missing, and live accounts are configured ({', '.join(live)}): who can write rows can forge them"
        yield Fault("service.audit_keys", problem, "add [[service.audit_keys]] with an id and a secret")
    yield from _networks(settings)
    for name, account in settings.accounts.items():
        for setting in ("window_past_seconds", "window_future_seconds"):
            if getattr(account, setting) > MAX_WINDOW_HOURS * 3600:
                problem = f"is more than {MAX_WINDOW_HOURS} hours: an old delivery that somebody kept is still accepted"
                yield Fault(f"accounts.{name}.{setting}", problem, "give what clocks may differ by, such as 300")
    yield from _used_twice(settings)
    yield from _readable(settings)


def _networks(settings: Settings) -> Iterator[Fault]:
    given = (
        (
            "service.trusted_proxies",
            settings.service.trusted_proxies,
            "they may claim any address, and HTTPS",
        ),
        ("metrics.allowed_networks", settings.metrics.allowed_networks, "strangers may read metrics and probes"),
        ("fulfilment.allowed_networks", settings.fulfilment.allowed_networks, "sinks may lead to any machine there"),
    )
    for setting, networks, harm in given:
        for network in networks:
            if _is_huge(network):
                yield Fault(setting, f"has {network}, which holds strangers: {harm}", "name the machines' own networks")


def _is_huge(network: Network) -> bool:
    if network.prefixlen >= _MIN_PREFIX[network.version]:
        return False
    return not any(_lies_in(network, private) for private in _PRIVATE)


def _lies_in(network: Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(network, IPv4Network) and isinstance(other, IPv4Network):
        return network.subnet_of(other)
    return isinstance(network, IPv6Network) and isinstance(other, IPv6Network) and network.subnet_of(other)


def _used_twice(settings: Settings) -> Iterator[Fault]:
    """Find one value for two purposes: a leak of one is a leak of both."""
    first: dict[str, str] = {}
    for setting, secret in settings.secrets():
        if setting.endswith((".username", ".url")):
            continue
        other = first.setdefault(secret.reveal(), setting)
        if other != setting:
            yield Fault(setting, f"({secret.reference}) is the same value as {other}", "give each purpose its own")


def _readable(settings: Settings) -> Iterator[Fault]:
    url = settings.service.database
    file = Path(url.partition(":///")[2].partition("?")[0])
    if not is_postgresql(url) and others_may_read(file):
        yield Fault("service.database", f"is {file}, which others on this machine may read", f"chmod 600 {file}*")
