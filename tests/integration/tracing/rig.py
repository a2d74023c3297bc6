"""A web process and a worker, each a service of its own on one database, a shop, and a collector of traces."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from receipted.settings.load import Settings
from receipted.settings.models import SinkSettings, TracingSettings
from receipted.settings.secrets import Secret
from tests.support.collector import Collector, collecting
from tests.support.effect_receiver import KEY, Receiver
from tests.support.serving import Served, serving, settings
from tests.support.settings_file import NOWHERE
from tests.support.working import worker

HEADER = "api-key=a%20secret-for-the-collector"


@dataclass
class Rig:
    """Both processes, while they run."""

    web: Served
    shop: Receiver
    collector: Collector


def configured(folder: Path, database: str, shop: str, endpoint: str | None, **tracing: Any) -> Settings:
    """Settings with one sink, and traces to that endpoint."""
    sink = SinkSettings(name="shop", url=shop, secrets=(Secret(KEY, reference="env:SHOP"),))
    given: dict[str, Any] = {"endpoint": endpoint, "share": 1.0, "headers": Secret(HEADER, reference="env:HEADERS")}
    made = TracingSettings.model_validate({**given, **tracing})
    found = settings(folder, tick=0.05, database=database)
    away = {"base_url": NOWHERE, "options": {"allow_loopback_http": True}}
    accounts = {name: account.model_copy(update=away) for name, account in found.accounts.items()}
    return found.model_copy(update={"sinks": (sink,), "tracing": made, "accounts": accounts})


@contextmanager
def running(folder: Path, database: str, **tracing: Any) -> Iterator[Rig]:
    """A rig; what is left of the traces has been sent when the block has ended."""
    shop = Receiver()
    shop.start()
    try:
        with collecting() as collector:
            config = configured(folder, database, shop.url, tracing.pop("endpoint", collector.url), **tracing)
            with serving(config) as web, worker(config):
                yield Rig(web, shop, collector)
    finally:
        shop.stop()
