"""The providers by name: built in, of installed packages, and of pages in files."""

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from providers.banked.provider import Banked
from providers.contract import Provider
from providers.engine import page
from providers.engine.pointers import InvalidPage
from providers.engine.provider import built_in, declared

#: Entry points of packages: each names a Provider class, or the path of a page.
GROUP: Final = "receipted.providers"

#: What a setting for a page in a file begins with.
_FILE: Final = "file:"

AlternativePayments = built_in("alternative_payments")
StableGenius = built_in("stable_genius")
Payfield = built_in("payfield")
Stripe = built_in("stripe")
Square = built_in("square")
Paddle = built_in("paddle")
CheckoutCom = built_in("checkout_com")
PayPal = built_in("paypal")
BTCPayServer = built_in("btcpay")
Braintree = built_in("braintree")

PROVIDERS: Final[Mapping[str, type[Provider]]] = {
    provider.name: provider
    for provider in (
        AlternativePayments,
        StableGenius,
        Payfield,
        Banked,
        Stripe,
        Square,
        Paddle,
        CheckoutCom,
        PayPal,
        BTCPayServer,
        Braintree,
    )
}


def with_pages(entries: Sequence[str], base: Path) -> dict[str, type[Provider]]:
    """Return the built-in providers, those of installed packages, and these pages.

    An entry is `file:` and a path, which starts at `base`. Raises InvalidPage for a page or package that is wrong, and
    where two providers have one name.
    """
    found = dict(PROVIDERS)
    for point in entry_points(group=GROUP):
        _add(found, _loaded(point.name, point.load()), point.name)
    for entry in entries:
        if not entry.startswith(_FILE):
            raise InvalidPage(f"{entry!r} is no page: give file: and its path")
        _add(found, declared(page.read(base / entry.removeprefix(_FILE))), entry)
    return found


def is_built_in(provider: type[Provider]) -> bool:
    """Return whether the provider is one of this program's own."""
    return PROVIDERS.get(provider.name) is provider


def _loaded(name: str, found: object) -> type[Provider]:
    if isinstance(found, type) and issubclass(found, Provider):
        return found
    if isinstance(found, str | Path):
        return declared(page.read(Path(found)))
    raise InvalidPage(f"the package's entry point {name!r} is neither a Provider nor the path of a page")


def _add(found: dict[str, type[Provider]], provider: type[Provider], origin: str) -> None:
    if provider.name in found:
        raise InvalidPage(f"{origin}: there is a provider {provider.name!r} already")
    found[provider.name] = provider
