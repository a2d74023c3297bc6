"""Every metric with its labels, and rows of their numbers, bounded and added up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final, Literal

import msgspec

from providers.errors import DeliveryRejected
from receiver.group_commit import BATCH_BOUNDS, WAIT_BOUNDS_S
from statemachine.phases import Alarm, Outcome, Review
from worker.inbox_loop import SECONDS as DECISION_SECONDS

#: A label's values, or None where they are the names of what is configured.
Values = tuple[str, ...] | None

#: What a value becomes that is none of them: of an account that was configured once, or of a bug.
OTHER: Final = "(other)"


@dataclass(frozen=True)
class Metric:
    """One metric; as text it is its name, so that expressions are written with it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    says: str
    labels: Mapping[str, Values] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()  #: of a histogram
    of: Literal["process", "database"] = (
        "process"  #: figures of processes are summed; all processes report the same database
    )

    def __str__(self) -> str:
        return self.name

    @property
    def bucket(self) -> str:
        """The name of a histogram's buckets."""
        return f"{self.name}_bucket"


def _counter(name: str, says: str, **labels: Values) -> Metric:
    return Metric(name, "counter", says, labels)


def _gauge(name: str, says: str, **labels: Values) -> Metric:
    return Metric(name, "gauge", says, labels)


def _database_gauge(name: str, says: str, **labels: Values) -> Metric:
    return Metric(name, "gauge", says, labels, of="database")


# the way in

DELIVERIES: Final = _counter(
    "receipted_deliveries_total",
    "Requests of providers, by what became of them; without an account where the URL names none.",
    account=None,
    outcome=(
        *("recorded", "duplicate", "variant", "unverified", "limited", "refused", "abandoned", "unavailable"),
        "failed",
    ),
)
UNVERIFIED: Final = _counter(
    "receipted_verification_failures_total",
    "Deliveries that were not authentic, by the reason.",
    account=None,
    reason=tuple(sorted(DeliveryRejected.REASONS)),
)
INTAKE: Final = Metric(
    "receipted_intake_seconds",
    "histogram",
    "From a verified delivery to the answer that its commit allows.",
    bounds=WAIT_BOUNDS_S,
)
INTAKE_QUEUE: Final = _gauge("receipted_intake_queue_messages", "Deliveries that wait for a commit to begin.")
INTAKE_LIMIT: Final = _gauge("receipted_intake_queue_limit_messages", "How many may wait (service.intake_queue).")
INTAKE_BATCH: Final = Metric(
    "receipted_intake_batch_messages", "histogram", "Deliveries of one commit.", bounds=BATCH_BOUNDS
)

# the work

DECISIONS: Final = _counter(
    "receipted_decisions_total",
    "Messages that were decided, of any source, by the weightiest of their decisions; dead after the last attempt.",
    account=None,
    outcome=(*(outcome.value for outcome in Outcome), "dead"),
)
DECIDED: Final = Metric(
    "receipted_decision_seconds",
    "histogram",
    "From the receipt of a webhook or callback to its decision; a replay counts from the receipt too.",
    bounds=DECISION_SECONDS,
)
POLLS: Final = _counter(
    "receipted_polls_total",
    "Questions to providers about one payment, by how they ended.",
    account=None,
    outcome=("answered", "refused", "limited", "away", "failed"),
)
JOURNAL_EVENTS: Final = _counter(
    "receipted_journal_events_total",
    "Events that a provider had logged: pushed ones had come by webhook when they were read, unpushed ones had not.",
    account=None,
    outcome=("pushed", "unpushed"),
)
ATTEMPTS: Final = _counter(
    "receipted_fulfilment_attempts_total",
    "Attempts to hand an effect to its sink, by how they ended.",
    sink=None,
    outcome=("delivered", "failed", "dead", "missing"),
)

# the process

POOL_IN_USE: Final = _gauge("receipted_pool_in_use_connections", "Connections to the database that are in use.")
POOL_SIZE: Final = _gauge("receipted_pool_limit_connections", "How many there may be.")
POOL_WAITS: Final = _counter("receipted_pool_waits_total", "Units of work that found every connection in use.")
PROCESSES: Final = _gauge("receipted_processes", "Processes whose figures these are.")
CPU: Final = _counter("receipted_process_cpu_seconds_total", "Processor time that they have used.")
BUILD: Final = _gauge("receipted_build_info", "Always 1; the label is the version.", version=None)
LOOP_FAILURES: Final = _counter(
    "receipted_loop_failures_total",
    "Steps of the process's loops that failed and are tried again: the database was away, or a bug.",
    loop=("inbox", "outbox", "poller", "planner", "push", "housekeeping", "reconcile"),
    cause=("storage", "bug"),
)
LOOP_FAILING: Final = _gauge(
    "receipted_loop_failing_seconds",
    "For how long a loop has done nothing but fail; of its accounts or batches, the longest. 0 while it goes on.",
    loop=("inbox", "outbox", "poller", "planner", "push", "housekeeping", "reconcile"),
)
UNREADABLE: Final = _counter(
    "receipted_unreadable_rows_total",
    "How often rows were met that cannot be read, and were left out or set aside; the log names each once.",
    table=(
        *("inbox_message", "payment", "transition", "outbox_message", "delivery_attempt", "rejected_delivery"),
        *("account_budget", "poll_plan", "hazard", "push_watch", "push_quality", "reconciliation", "retention_run"),
        *("operator_action", "event", "known_delivery"),
    ),
)
SCRAPE_ERRORS: Final = _counter(
    "receipted_scrape_errors_total",
    "Figures of the database that could not be read for an answer, and are missing in it.",
    figures=("inbox", "outbox", "reviews", "quarantine", "asking", "push", "audit"),
)

# the database

INBOX: Final = _database_gauge(
    "receipted_inbox_messages", "Messages by status, counted up to 10,000.", status=("pending", "parked", "dead")
)
INBOX_AGE: Final = _database_gauge(
    "receipted_inbox_oldest_pending_seconds", "Age of the oldest message that is not decided."
)
OUTBOX: Final = _database_gauge(
    "receipted_outbox_messages", "Effects by status, counted up to 10,000.", status=("pending", "dead")
)
OUTBOX_AGE: Final = _database_gauge(
    "receipted_outbox_oldest_pending_seconds", "Age of the oldest effect that is not delivered."
)
REVIEWS: Final = _database_gauge(
    "receipted_reviews_open",
    "Payments that a person must decide about, counted up to 10,000.",
    review=tuple(review.value for review in Review),
)
QUARANTINE: Final = _database_gauge("receipted_quarantine_messages", "Rejected deliveries that are kept.", account=None)
BREAKER: Final = _database_gauge(
    "receipted_breaker_open", "1 while the provider is not asked, since it is away.", account=None
)
PAUSED: Final = _database_gauge(
    "receipted_budget_paused_seconds", "How long requests are paused, since the provider said so.", account=None
)
BACKLOG: Final = _database_gauge(
    "receipted_budget_backlog_seconds", "How far ahead the account's turns to send are taken.", account=None
)
BUDGET_LEFT: Final = _database_gauge(
    "receipted_budget_left_ratio",
    "The share of the account's budget that the schedule of questions leaves; absent without a limit.",
    account=None,
)
JOURNAL_AGE: Final = _gauge(
    "receipted_journal_age_seconds", "How long ago the events that a provider has logged were read.", account=None
)
STRETCH: Final = _database_gauge(
    "receipted_poll_stretch_ratio",
    "By what the longest waits are longer than configured, since the budget is short of them; 1 where it suffices.",
    account=None,
)
ALARM: Final = _database_gauge(
    "receipted_account_alarm",
    "1 while the alarm stands.",
    account=None,
    alarm=tuple(alarm.value for alarm in Alarm if alarm is not Alarm.DRIFT),
)
HEARD: Final = _database_gauge(
    "receipted_last_delivery_timestamp_seconds",
    "When the last authentic delivery came, as it was last measured.",
    account=None,
)
LOSS: Final = _database_gauge(
    "receipted_push_loss_ratio",
    "Share of changes of the last days that no push reported; absent where none is known.",
    account=None,
)
LAG: Final = _database_gauge(
    "receipted_push_lag_seconds",
    "From the change by the provider's clock to receipt, of the last seven days.",
    account=None,
    quantile=("0.5", "0.99"),
)
AUDIT_FAULTS: Final = _database_gauge("receipted_audit_faults", "Rows that the last whole audit found wrong.")
AUDITED: Final = _database_gauge("receipted_audit_timestamp_seconds", "When the last whole audit ended.")

#: All of them, in the order of the documents.
METRICS: Final[tuple[Metric, ...]] = tuple(found for found in list(globals().values()) if isinstance(found, Metric))


#: By metric's name and the values of its labels: one number, or of a histogram the counts and the sum.
Rows = dict[str, dict[tuple[str, ...], list[float]]]


class LabelBounds:
    """Allowed values of labels; any other becomes OTHER.

    Those named by the settings: accounts, sinks and the version.
    """

    def __init__(self, accounts: Iterable[str], sinks: Iterable[str], version: str) -> None:
        self._names: Mapping[str, tuple[str, ...]] = {
            "account": tuple(accounts),
            "sink": tuple(sinks),
            "version": (version,),
        }

    def values(self, metric: Metric) -> list[tuple[str, ...]]:
        """Return every allowed value of each label."""
        return [self._names[name] if values is None else values for name, values in metric.labels.items()]

    def every(self, metric: Metric) -> Iterable[tuple[str, ...]]:
        """Return all combinations of the labels' values."""
        return product(*self.values(metric))

    def bounded(self, metric: Metric, values: Sequence[str]) -> tuple[str, ...]:
        """Return the values with OTHER for unknown ones; "", for none, stays."""
        allowed = self.values(metric)
        return tuple(
            value if not value or value in known else OTHER for value, known in zip(values, allowed, strict=True)
        )


def add(rows: Rows, metric: Metric, labels: tuple[str, ...], numbers: Sequence[float]) -> None:
    """Add the numbers to the row of these labels."""
    known = rows.setdefault(metric.name, {})
    before = known.get(labels)
    known[labels] = list(numbers) if before is None else [a + b for a, b in zip(before, numbers, strict=True)]


def sum_rows(parts: Iterable[Rows]) -> Rows:
    """Sum the rows of several parts."""
    found: Rows = {}
    for part in parts:
        for name, series in part.items():
            known = found.setdefault(name, {})
            for labels, numbers in series.items():
                before = known.get(labels)
                known[labels] = numbers if before is None else [a + b for a, b in zip(before, numbers, strict=True)]
    return found


def encode_rows(rows: Rows, **more: Any) -> bytes:
    """Encode the rows and further values for another process."""
    return msgspec.json.encode(
        {"rows": {name: [[list(labels), row] for labels, row in series.items()] for name, series in rows.items()}}
        | more
    )


def decode_rows(content: bytes) -> tuple[Rows, dict[str, Any]]:
    """Decode what `encode_rows` encoded."""
    found: dict[str, Any] = msgspec.json.decode(content)
    rows = {name: {tuple(labels): row for labels, row in series} for name, series in found.pop("rows").items()}
    return rows, found
