"""docs/operations/dashboard.json: a Grafana dashboard, written with the metrics themselves."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from receipted.metrics import catalogue as m

#: Of Grafana's, since 9; later ones bring it forward by themselves.
SCHEMA_VERSION: Final = 38

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24


@dataclass(frozen=True)
class Panel:
    """One panel: what it asks for, with the legend of each line."""

    title: str
    queries: tuple[tuple[str, str], ...]
    says: str
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8


def _per_second(metric: m.Metric, *by: str) -> str:
    return f"sum by ({', '.join(by)}) (rate({metric}{_chosen(metric)}[$__rate_interval]))"


def _level(metric: m.Metric, *by: str) -> str:
    """Every process tells the same of the database."""
    words = f" by ({', '.join(by)})" if by else ""
    return f"max{words} ({metric}{_chosen(metric)})"


def _quantiles(metric: m.Metric) -> tuple[tuple[str, str], ...]:
    shares = ("0.5", "0.95", "0.99")
    return tuple(
        (f"histogram_quantile({share}, sum by (le) (rate({metric.bucket}[$__rate_interval])))", f"p{share[2:]:0<2}")
        for share in shares
    )


def _chosen(metric: m.Metric) -> str:
    return '{account=~"$account"}' if "account" in metric.labels else ""


ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "Now",
        (
            Panel("Reviews open", ((_level(m.REVIEWS, "review"), "{{review}}"),), m.REVIEWS.says, kind="stat", width=6),
            Panel(
                "Dead",
                ((f'max({m.INBOX}{{status="dead"}})', "messages"), (f'max({m.OUTBOX}{{status="dead"}})', "effects")),
                "What is tried no more.",
                kind="stat",
                width=6,
            ),
            Panel(
                "Oldest that waits",
                ((_level(m.INBOX_AGE), "message"), (_level(m.OUTBOX_AGE), "effect")),
                m.INBOX_AGE.says,
                "s",
                "stat",
                6,
            ),
            Panel(
                "Alarms",
                ((f"{_level(m.ALARM, 'account', 'alarm')} > 0", "{{account}} {{alarm}}"),),
                m.ALARM.says,
                kind="stat",
                width=6,
            ),
        ),
    ),
    (
        "The way in",
        (
            Panel(
                "Deliveries",
                ((_per_second(m.DELIVERIES, "account", "outcome"), "{{account}} {{outcome}}"),),
                m.DELIVERIES.says,
                "reqps",
            ),
            Panel("From delivery to answer", _quantiles(m.INTAKE), m.INTAKE.says, "s"),
            Panel(
                "Verification failures",
                ((_per_second(m.UNVERIFIED, "account", "reason"), "{{account}} {{reason}}"),),
                m.UNVERIFIED.says,
                "reqps",
            ),
            Panel(
                "Queue",
                (
                    (f"sum by (instance) ({m.INTAKE_QUEUE})", "{{instance}} waits"),
                    (f"sum by (instance) ({m.INTAKE_LIMIT})", "{{instance}} room"),
                ),
                m.INTAKE_QUEUE.says,
            ),
            Panel("Deliveries of one commit", _quantiles(m.INTAKE_BATCH), m.INTAKE_BATCH.says),
            Panel("Quarantine", ((_level(m.QUARANTINE, "account"), "{{account}}"),), m.QUARANTINE.says),
        ),
    ),
    (
        "The work",
        (
            Panel(
                "Decisions",
                ((_per_second(m.DECISIONS, "account", "outcome"), "{{account}} {{outcome}}"),),
                m.DECISIONS.says,
                "ops",
            ),
            Panel("From receipt to decision", _quantiles(m.DECIDED), m.DECIDED.says, "s"),
            Panel(
                "Inbox and outbox",
                (
                    (_level(m.INBOX, "status"), "messages {{status}}"),
                    (_level(m.OUTBOX, "status"), "effects {{status}}"),
                ),
                m.INBOX.says,
            ),
            Panel(
                "Fulfilment",
                ((_per_second(m.ATTEMPTS, "sink", "outcome"), "{{sink}} {{outcome}}"),),
                m.ATTEMPTS.says,
                "ops",
            ),
            Panel(
                "Age of what waits",
                ((_level(m.INBOX_AGE), "message"), (_level(m.OUTBOX_AGE), "effect")),
                m.OUTBOX_AGE.says,
                "s",
            ),
            Panel("Reviews", ((_level(m.REVIEWS, "review"), "{{review}}"),), m.REVIEWS.says),
        ),
    ),
    (
        "Asking and push",
        (
            Panel(
                "Questions",
                ((_per_second(m.POLLS, "account", "outcome"), "{{account}} {{outcome}}"),),
                m.POLLS.says,
                "ops",
            ),
            Panel(
                "Logged events",
                (
                    (_per_second(m.JOURNAL_EVENTS, "account", "outcome"), "{{account}} {{outcome}}"),
                    (_level(m.JOURNAL_AGE, "account"), "{{account}} s since it was read"),
                ),
                m.JOURNAL_EVENTS.says,
            ),
            Panel(
                "Budget left", ((_level(m.BUDGET_LEFT, "account"), "{{account}}"),), m.BUDGET_LEFT.says, "percentunit"
            ),
            Panel(
                "Budget short",
                (
                    (_level(m.STRETCH, "account"), "{{account}} stretch"),
                    (_level(m.BACKLOG, "account"), "{{account}} s ahead"),
                    (_level(m.PAUSED, "account"), "{{account}} s paused"),
                ),
                m.STRETCH.says,
            ),
            Panel("Breaker", ((_level(m.BREAKER, "account"), "{{account}}"),), m.BREAKER.says),
            Panel("Push lost", ((_level(m.LOSS, "account"), "{{account}}"),), m.LOSS.says, "percentunit"),
            Panel("Push lag", ((_level(m.LAG, "account", "quantile"), "{{account}} {{quantile}}"),), m.LAG.says, "s"),
            Panel(
                "Since the last delivery",
                ((f"time() - {_level(m.HEARD, 'account')}", "{{account}}"),),
                m.HEARD.says,
                "s",
            ),
        ),
    ),
    (
        "The processes",
        (
            Panel(
                "Processes",
                (
                    (f"sum by (instance) ({m.PROCESSES})", "{{instance}}"),
                    (f"count by (version) ({m.BUILD})", "{{version}}"),
                ),
                m.PROCESSES.says,
            ),
            Panel("Processor", ((f"sum by (instance) (rate({m.CPU}[$__rate_interval]))", "{{instance}}"),), m.CPU.says),
            Panel(
                "Database connections",
                (
                    (f"sum by (instance) ({m.POOL_IN_USE})", "{{instance}} in use"),
                    (f"sum by (instance) ({m.POOL_SIZE})", "{{instance}} at most"),
                    (f"sum by (instance) (rate({m.POOL_WAITS}[$__rate_interval]))", "{{instance}} waits a second"),
                ),
                m.POOL_IN_USE.says,
            ),
            Panel("Loops that fail", ((_per_second(m.LOOP_FAILURES, "loop"), "{{loop}}"),), m.LOOP_FAILURES.says),
            Panel("Loops failing for", ((f"max by (loop) ({m.LOOP_FAILING})", "{{loop}}"),), m.LOOP_FAILING.says, "s"),
            Panel("Rows unreadable", ((_per_second(m.UNREADABLE, "table"), "{{table}}"),), m.UNREADABLE.says),
            Panel("Figures missing", ((_per_second(m.SCRAPE_ERRORS, "figures"), "{{figures}}"),), m.SCRAPE_ERRORS.says),
            Panel("Audit", ((_level(m.AUDIT_FAULTS), "faults"),), m.AUDIT_FAULTS.says, kind="stat"),
            Panel("Since the audit", ((f"time() - {_level(m.AUDITED)}", "age"),), m.AUDITED.says, "s", "stat"),
        ),
    ),
)


def dashboard_file() -> str:
    """docs/operations/dashboard.json as it should be."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    return {
        "title": "Receipted",
        "uid": "receipted",
        "description": "Generated by python -m tests.repo.generate from the catalogue of metrics.",
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "tags": ["receipted"],
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "templating": {"list": [_datasource(), _accounts()]},
        "panels": list(_panels()),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus", "current": {}}


def _accounts() -> dict[str, Any]:
    return {
        "name": "account",
        "type": "query",
        "label": "Account",
        "datasource": _SOURCE,
        "query": {"query": f"label_values({m.QUARANTINE}, account)", "refId": "accounts"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels() -> Iterator[dict[str, Any]]:
    number = y = 0
    for title, panels in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
        }
        y, x = y + 1, 0
        height = 5 if title == ROWS[0][0] else 8
        for panel in panels:
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
            number += 1
            yield _panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": height})
            x += panel.width
        y += height


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for at, (expression, legend) in enumerate(panel.queries)
        ],
    }
