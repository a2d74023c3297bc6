"""/metrics of the real application after known traffic, on both databases."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from receipted.metrics.catalogue import METRICS, OTHER
from receipted.settings.load import Settings
from tests.integration.metrics.asking import parsed, scraped, value
from tests.support.databases import PostgreSQL
from tests.support.deliveries import PROVIDERS, event, sign
from tests.support.serving import Served, eventually, serving, settings


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings that read the database anew for every answer."""
    if request.param == "sqlite":
        yield _fresh(settings(tmp_path, tick=0.05))
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    database = server.cleaned()
    yield _fresh(settings(tmp_path, tick=0.05, database=database.url))
    database.close()


def _fresh(found: Settings, **changes: object) -> Settings:
    metrics = found.metrics.model_copy(update={"fresh_seconds": 0, **changes})
    return found.model_copy(update={"metrics": metrics})


@contextmanager
def receiving(config: Settings, *, with_work: bool = False) -> Iterator[Served]:
    with serving(config, with_work=with_work) as served:
        yield served


def test_what_was_delivered_is_told_by_account_and_outcome(config: Settings) -> None:
    with receiving(config) as served:
        first = event("sg")
        for signed in (first, first, event("sg"), event("pf")):
            assert served.post(signed).status == 200
        other = sign("sg", first.body + b" ")
        assert served.post(other).status == 200  # same id, other content
        assert served.post(event("bk").changed("banked-signature", lambda text: text[:-4] + "0000")).status == 401
        assert served.post(event("ap"), path="/webhooks/nobody").status == 404
        found = scraped(served)

        def count(**labels: str) -> float:
            return value(found, "receipted_deliveries_total", **labels)

        assert count(account="sg", outcome="recorded") == 2
        assert count(account="sg", outcome="duplicate") == 1
        assert count(account="sg", outcome="variant") == 1
        assert count(account="pf", outcome="recorded") == 1
        assert count(account="bk", outcome="unverified") == 1
        assert count(account="", outcome="refused") == 1
        assert count(account="ap", outcome="recorded") == 0
        assert value(found, "receipted_verification_failures_total", account="bk", reason="signature_wrong") == 1
        assert value(found, "receipted_intake_seconds_count") == 5
        assert 0 < value(found, "receipted_intake_seconds_sum") < 5 * 10
        assert value(found, "receipted_intake_batch_messages_sum") == 5
        assert value(found, "receipted_inbox_messages", status="pending") == 4
        assert 0 <= value(found, "receipted_inbox_oldest_pending_seconds") < 60
        assert value(found, "receipted_quarantine_messages", account="bk") == 1
        assert value(found, "receipted_quarantine_messages", account="sg") == 0
        assert value(found, "receipted_pool_limit_connections") == 15
        assert value(found, "receipted_processes") == 1
        assert set(found["receipted_scrape_errors_total"].values()) == {0}


def test_what_was_decided_and_is_owed_is_told(config: Settings) -> None:
    with receiving(config, with_work=True) as served:
        assert [served.post(event("sg")).status for _ in range(2)] == [200, 200]
        eventually(lambda: all(row.status != "pending" for row in served.rows()))
        eventually(lambda: sum(scraped(served)["receipted_fulfilment_attempts_total"].values()) >= 2)
        found = scraped(served)

        assert value(found, "receipted_decisions_total", account="sg", outcome="advanced") == 2
        assert value(found, "receipted_decisions_total", account="pf", outcome="advanced") == 0
        assert value(found, "receipted_decision_seconds_count") == 2
        assert value(found, "receipted_decision_seconds_bucket", le="+Inf") == 2
        assert value(found, "receipted_fulfilment_attempts_total", sink="shop", outcome="failed") >= 2
        assert value(found, "receipted_inbox_messages", status="pending") == 0
        assert value(found, "receipted_inbox_oldest_pending_seconds") == 0
        assert value(found, "receipted_outbox_messages", status="pending") >= 2
        assert value(found, "receipted_outbox_oldest_pending_seconds") > 0
        assert value(found, "receipted_account_alarm", account="pf", alarm="silent") == 0


def test_every_answer_is_made_of_the_catalogue(config: Settings) -> None:
    """Names, kinds of labels and their values: nothing that is told is told without being there."""
    known = {metric.name: metric for metric in METRICS}
    with receiving(config, with_work=True) as served:
        served.post(event("sg"))
        found = scraped(served)
    for name, series in found.items():
        base = next(
            (name.removesuffix(end) for end in ("_bucket", "_sum", "_count") if name.removesuffix(end) in known), name
        )
        metric = known[base]
        assert all({key for key, _ in labels} - {"le"} == set(metric.labels) for labels in series), name
        for labels in series:
            for key, text in labels:
                if key != "le" and metric.labels[key] is not None:
                    assert text in (*metric.labels[key], ""), (name, key, text)


def test_what_strangers_send_makes_no_series(config: Settings) -> None:
    """However many names, tokens and reasons are made up, there are as many series as before."""
    with receiving(config) as served:
        before = _series(scraped(served))
        for number in range(40):
            served.request("POST", f"/webhooks/made-up-{number}", b"{}")
            served.request("POST", f"/callbacks/made-up-{number}", b"{}")
            served.request("POST", f"/webhooks/sg?kind=k{number}", b"{}", [("X-StableGenius-Signature", f"v{number}")])
            served.request("GET", f"/metrics/{number}")
            served.request("PUT", f"/webhooks/sg{number}%0a", b"")
        served.service.parts.notes[0].answered["gone-account", "no-such-outcome"] += 3
        found = scraped(served)
        after = _series(found)

        assert value(found, "receipted_deliveries_total", account=OTHER, outcome=OTHER) == 3
        assert after - before <= {
            ("receipted_deliveries_total", (("account", ""), ("outcome", "refused"))),
            ("receipted_deliveries_total", (("account", OTHER), ("outcome", OTHER))),
            *(
                ("receipted_verification_failures_total", labels)
                for labels in found["receipted_verification_failures_total"]
            ),
        }
        assert {dict(labels)["account"] for _, labels in after if "account" in dict(labels)} <= {*PROVIDERS, "", OTHER}


def _series(found):
    return {(name, labels) for name, series in found.items() for labels in series}


def test_buckets_tell_the_waits_that_matter_apart(config: Settings) -> None:
    """Cumulative, in order, and neither all in the first nor all in the last for an ordinary delivery."""
    with receiving(config) as served:
        for _ in range(5):
            served.post(event("sg"))
        text = served.request("GET", "/metrics").body.decode()
    buckets = parsed(text)["receipted_intake_seconds_bucket"]
    in_order = sorted((float(dict(labels)["le"]), number) for labels, number in buckets.items())
    numbers = [number for _, number in in_order]

    assert numbers == sorted(numbers)
    assert in_order[-1] == (float("inf"), 5)
    assert in_order[0][0] <= 0.001
    assert in_order[-2][0] >= 10


def test_prometheus_may_ask_for_the_open_format(config: Settings) -> None:
    with receiving(config) as served:
        answer = served.request("GET", "/metrics", headers=[("Accept", "application/openmetrics-text;version=1.0.0")])

        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.body.endswith(b"# EOF\n")
