"""docs/operations/alerts.yaml: the rules, written with the metrics themselves so that they name none that is not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from receipted.metrics import catalogue as m

#: Where headings are, from the root of the repository.
RUNBOOK: Final = "docs/operations.md"


@dataclass(frozen=True)
class Alert:
    """One rule, and the heading of docs/operations.md that says what it means and what to do."""

    name: str
    expression: str
    lasting: str  #: for how long it must hold
    severity: str  #: page: somebody must look now; ticket: somebody must look today
    summary: str
    heading: str

    @property
    def anchor(self) -> str:
        """The heading's, as a link names it."""
        return self.heading.lower().replace(" ", "-").replace(":", "")


def _rate(metric: m.Metric, by: str, over: str, **only: str) -> str:
    chosen = ",".join(f'{label}=~"{values}"' for label, values in only.items())
    return f"sum by ({by}) (increase({metric}{{{chosen}}}[{over}]))"


ALERTS: Final[tuple[Alert, ...]] = (
    Alert(
        "ReceiptedAccountSilent",
        f'max by (account) ({m.ALARM}{{alarm="silent"}}) == 1',
        "1m",
        "page",
        "Nothing is received for {{ $labels.account }}, which usually receives.",
        "Alert: nothing is received",
    ),
    Alert(
        "ReceiptedVerificationFailures",
        f'{_rate(m.UNVERIFIED, "account", "15m")} > 10 or max by (account) ({m.ALARM}{{alarm="unverified"}}) == 1',
        "5m",
        "page",
        "Deliveries for {{ $labels.account }} fail verification.",
        "Alert: deliveries fail verification",
    ),
    Alert(
        "ReceiptedStorageAway",
        f"{_rate(m.DELIVERIES, 'job', '5m', outcome='unavailable|failed')} > 0",
        "2m",
        "page",
        "Deliveries are answered 503 or 500; providers send them again.",
        "Alert: deliveries cannot be stored",
    ),
    Alert(
        "ReceiptedMessagesDead",
        f'max({m.INBOX}{{status="dead"}}) > 0',
        "1m",
        "page",
        "{{ $value }} messages could not be applied and are tried no more.",
        "Alert: dead letters",
    ),
    Alert(
        "ReceiptedEffectsDead",
        f'max({m.OUTBOX}{{status="dead"}}) > 0',
        "1m",
        "page",
        "{{ $value }} effects were not taken by their sink and are tried no more.",
        "Alert: dead letters",
    ),
    Alert(
        "ReceiptedAccountDeadLetters",
        f'max by (account) ({m.ALARM}{{alarm="dead_letters"}}) == 1',
        "1m",
        "ticket",
        "Messages of {{ $labels.account }}, or effects of its payments, are dead.",
        "Alert: dead letters",
    ),
    Alert(
        "ReceiptedReviewsOpen",
        f"max by (review) ({m.REVIEWS}) > 0",
        "15m",
        "ticket",
        "{{ $value }} payments need a person: {{ $labels.review }}.",
        "Alert: reviews are open",
    ),
    Alert(
        "ReceiptedInboxLag",
        f"max({m.INBOX_AGE}) > 120",
        "2m",
        "page",
        "The oldest undecided message is {{ $value | humanizeDuration }} old.",
        "Alert: the inbox lags",
    ),
    Alert(
        "ReceiptedOutboxAge",
        f"max({m.OUTBOX_AGE}) > 1800",
        "5m",
        "page",
        "The oldest undelivered effect is {{ $value | humanizeDuration }} old.",
        "Alert: effects are not delivered",
    ),
    Alert(
        "ReceiptedBreakerOpen",
        f"max by (account) ({m.BREAKER}) == 1",
        "10m",
        "ticket",
        "The provider of {{ $labels.account }} gives no answers.",
        "Alert: a provider is away",
    ),
    Alert(
        "ReceiptedAccountUnreachable",
        f'max by (account) ({m.ALARM}{{alarm="unreachable"}}) == 1',
        "1m",
        "page",
        "Questions to the provider of {{ $labels.account }} have met outages for too long.",
        "Alert: a provider is away",
    ),
    Alert(
        "ReceiptedPushLoss",
        f'max by (account) ({m.ALARM}{{alarm="push_loss"}}) == 1',
        "5m",
        "ticket",
        "Changes of {{ $labels.account }} are found by asking, and no webhook told of them.",
        "Alert: push is lost",
    ),
    Alert(
        "ReceiptedPollBudgetShort",
        f"max by (account) ({m.STRETCH}) > 1.5 or max by (account) ({m.BACKLOG}) > 60",
        "30m",
        "ticket",
        "The budget of {{ $labels.account }} is used up: payments are asked about later than configured.",
        "Alert: the poll budget is used up",
    ),
    Alert(
        "ReceiptedPoolExhausted",
        f"sum by (instance) (rate({m.POOL_WAITS}[5m])) > 0.1",
        "10m",
        "ticket",
        "Every database connection of {{ $labels.instance }} is in use again and again.",
        "Alert: the connection pool is exhausted",
    ),
    Alert(
        "ReceiptedIntakeQueueFilling",
        f"sum by (instance) ({m.INTAKE_QUEUE}) / sum by (instance) ({m.INTAKE_LIMIT}) > 0.5",
        "1m",
        "page",
        "Half of the room for deliveries that wait is taken at {{ $labels.instance }}.",
        "Alert: deliveries cannot be stored",
    ),
    Alert(
        "ReceiptedAuditFailing",
        f"max({m.AUDIT_FAULTS}) > 0",
        "0m",
        "page",
        "The last audit found {{ $value }} rows that are wrong.",
        "Alert: the audit fails",
    ),
    Alert(
        "ReceiptedAuditMissing",
        f"time() - max({m.AUDITED}) > 172800",
        "1h",
        "ticket",
        "No whole audit has ended for two days.",
        "Alert: the audit fails",
    ),
    Alert(
        "ReceiptedLoopFailing",
        f"max by (loop) ({m.LOOP_FAILING}) > 300",
        "5m",
        "ticket",
        "A loop of a process has done nothing but fail for five minutes; the others go on.",
        "Alert: a loop fails",
    ),
    Alert(
        "ReceiptedUnmeasured",
        f"{_rate(m.SCRAPE_ERRORS, 'figures', '15m')} > 3 or absent({m.INBOX_AGE})",
        "10m",
        "ticket",
        "Figures of the database are missing, so that other alerts are blind.",
        "Alert: figures are missing",
    ),
)


def alerts_file() -> str:
    """docs/operations/alerts.yaml as it should be."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Generated by python -m tests.repo.generate; load it with rule_files of Prometheus."
    yield "groups:"
    yield "  - name: receipted"
    yield "    rules:"
    for alert in ALERTS:
        yield f"      - alert: {alert.name}"
        yield f"        expr: {_quoted(alert.expression)}"
        yield f"        for: {alert.lasting}"
        yield "        labels:"
        yield f"          severity: {alert.severity}"
        yield "        annotations:"
        yield f"          summary: {_quoted(alert.summary)}"
        yield f"          runbook: {_quoted(f'{RUNBOOK}#{alert.anchor}')}"


def _quoted(text: str) -> str:
    """A string of YAML in single quotes."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"
