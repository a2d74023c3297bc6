"""Alert rules and dashboard name metrics and headings that exist, and are as generated."""

import json
import re
import shutil
import subprocess

import pytest

from receipted.metrics.catalogue import ALARM, METRICS
from tests.repo import generate
from tests.repo.alerts import ALERTS, alerts_file
from tests.repo.dashboard import dashboard, dashboard_file

KNOWN = {metric.name: metric for metric in METRICS} | {
    f"{metric.name}{end}": metric
    for metric in METRICS
    if metric.kind == "histogram"
    for end in ("_bucket", "_sum", "_count")
}

#: What Prometheus itself adds to a series, and what a histogram's buckets have.
ADDED = {"job", "instance", "le"}

_METRIC = re.compile(r"(receipted_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"")
_BY = re.compile(r"by \(([^)]*)\)")


def problems(expression: str) -> list[str]:
    """What an expression names that is not there."""
    found, named = [], set()
    for name, selected in _METRIC.findall(expression):
        metric = KNOWN.get(name)
        if metric is None:
            found.append(f"no metric {name}")
            continue
        named |= set(metric.labels)
        for label, value in _LABEL.findall(selected):
            values = metric.labels.get(label)
            if label not in metric.labels:
                found.append(f"{name} has no label {label}")
            elif values is not None and not set(value.split("|")) <= set(values):
                found.append(f"{name} has no {label} {value}")
    for labels in _BY.findall(expression):
        found += [f"grouped by {label}" for label in labels.split(", ") if label not in named | ADDED]
    return found


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_names_what_exists(alert):
    assert problems(alert.expression) == []
    assert f"## {alert.heading}" in generate.OPERATIONS.read_text().splitlines()
    assert f"`{alert.name}`" in generate.OPERATIONS.read_text()
    labels = set(re.findall(r"\$labels\.(\w+)", alert.summary))
    assert labels <= {each for by in _BY.findall(alert.expression) for each in by.split(", ")}


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_names_what_exists(panel):
    for target in panel["targets"]:
        assert problems(target["expr"]) == []
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert shown <= {each for by in _BY.findall(target["expr"]) for each in by.split(", ")}


@pytest.mark.parametrize(
    "expression",
    [
        "receipted_nothing_total",
        'receipted_inbox_messages{state="dead"}',
        'receipted_inbox_messages{status="gone"}',
        "sum by (account) (receipted_inbox_messages)",
        "receipted_intake_seconds_total",
    ],
)
def test_what_does_not_exist_is_found(expression):
    assert problems(expression)


def test_levels_of_the_database_are_never_added_up():
    """Every process tells the same ones: a sum over instances would be a multiple."""
    every = [alert.expression for alert in ALERTS] + [t["expr"] for panel in panels() for t in panel["targets"]]
    levels = [metric.name for metric in METRICS if metric.of == "database"]

    assert [text for text in every for name in levels if re.search(rf"sum[^(]*\([^)]*\)? ?\(?{name}\b", text)] == []


def test_every_metric_is_on_the_dashboard():
    text = json.dumps(dashboard())

    assert [metric.name for metric in METRICS if metric.name not in text] == []


def test_the_dashboard_has_the_shape_that_grafana_imports():
    found = dashboard()
    every = found["panels"]
    numbers = [panel["id"] for panel in every]

    assert found["schemaVersion"] >= 36
    assert len(set(numbers)) == len(numbers)
    assert {variable["name"]: variable["type"] for variable in found["templating"]["list"]} == {
        "datasource": "datasource",
        "account": "query",
    }
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in every if panel["type"] != "row")
    cells = set()
    for panel in every:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & mine, f"{panel['title']} lies upon another"
        cells |= mine


def test_the_files_are_as_generated():
    assert generate.ALERTS.read_text() == alerts_file(), "run python -m tests.repo.generate"
    assert generate.DASHBOARD.read_text() == dashboard_file(), "run python -m tests.repo.generate"
    present = generate.OPERATIONS.read_text()
    assert present == generate.tabled(present), "run python -m tests.repo.generate"
    assert [metric.name for metric in METRICS if f"| `{metric.name}` |" not in present] == []


def test_names_are_in_base_units():
    ends = {"counter": ("_total",), "histogram": ("_seconds", "_messages")}
    for metric in METRICS:
        assert re.fullmatch(r"receipted_[a-z_]+", metric.name)
        assert metric.name.endswith(ends.get(metric.kind, "")), metric.name
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert not re.search(r"_(ms|minutes|percent|kb|millis)", metric.name)


def promtool(*arguments):
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool, of Prometheus, is not on this machine")
    return subprocess.run([found, *arguments], capture_output=True, text=True, check=False)


def test_prometheus_takes_the_rules():
    checked = promtool("check", "rules", generate.ALERTS)

    assert checked.returncode == 0, checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout


def test_every_alarm_of_an_account_alerts(tmp_path):
    """By Prometheus itself: one alert for each, of that account alone, and none where the alarm does not stand."""
    alerts = {
        alarm: [alert for alert in ALERTS if f'alarm="{alarm}"' in alert.expression] for alarm in ALARM.labels["alarm"]
    }
    assert [len(found) for found in alerts.values()] == [1] * len(alerts)

    def series(account, alarm, value):
        name = f'{ALARM}{{account="{account}",alarm="{alarm}",instance="one"}}'
        return {"series": name, "values": f"{value}x30"}

    def expected(alert, accounts):
        labels = {"severity": alert.severity}
        notes = {"runbook": f"docs/operations.md#{alert.anchor}"}
        return {
            "eval_time": "20m",
            "alertname": alert.name,
            "exp_alerts": [
                {
                    "exp_labels": {**labels, "account": account},
                    "exp_annotations": {**notes, "summary": alert.summary.replace("{{ $labels.account }}", account)},
                }
                for account in accounts
            ],
        }

    tests = [
        {
            "interval": "1m",
            "input_series": [series("acme", each, int(each == alarm)) for each in alerts] + [series("other", alarm, 0)],
            "alert_rule_test": [
                expected(alert, ["acme"] if each == alarm else []) for each, (alert,) in alerts.items()
            ],
        }
        for alarm in alerts
    ]
    path = tmp_path / "alarms.yaml"
    path.write_text(json.dumps({"rule_files": [str(generate.ALERTS)], "tests": tests}))  # JSON is YAML
    done = promtool("test", "rules", path)

    assert done.returncode == 0, done.stdout + done.stderr
