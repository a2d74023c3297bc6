"""What Prometheus would ask and read, and deliveries whose effect on it is known."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.serving import Served


def scraped(served: Served, **headers: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Every sample by name and labels."""
    answer = served.request("GET", "/metrics", headers=list(headers.items()))
    assert answer.status == 200, answer.body
    return parsed(answer.body.decode())


def parsed(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Every sample of an exposition; a series that is told twice is a fault."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            assert labels_of(sample) not in series, sample
            series[labels_of(sample)] = sample.value
    return found


def labels_of(sample: Sample) -> tuple[tuple[str, str], ...]:
    """As a key."""
    return tuple(sorted(sample.labels.items()))


def value(found: Mapping[str, Mapping[tuple[tuple[str, str], ...], float]], name: str, **labels: str) -> float:
    """One sample's value."""
    return found[name][tuple(sorted(labels.items()))]
