"""Writes what the documents take from the code: `python -m tests.repo.generate`. A test compares them.

docs/lifecycles.md, docs/providers.md, docs/effects.schema.json and docs/operations/ are written whole; docs/errors.md,
docs/operations.md and docs/your-shop.md have their tables between marks.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from providers.banked import errors as banked
from providers.catalogue import PROVIDERS, AlternativePayments, Payfield, StableGenius
from providers.contract import Provider
from providers.engine.page import RuleSection
from providers.engine.proof import prove
from providers.engine.provider import DeclaredProvider
from receipted.cli.lifecycles import diagram
from receipted.metrics.catalogue import METRICS
from service import effect_schema
from service.effect_schema import (
    ALARM_FIELDS,
    ENVELOPE_FIELDS,
    PART_FIELDS,
    PAYMENT_FIELDS,
    EffectField,
    effect_meanings,
    schema_file,
)
from statemachine.errors import ServiceError
from statemachine.lifecycle import NOT_CREATED, Lifecycle
from tests.repo.alerts import alerts_file
from tests.repo.dashboard import dashboard_file

ROOT = Path(__file__).parents[2]
LIFECYCLES = ROOT / "docs" / "lifecycles.md"
PROVIDERS_PAGE = ROOT / "docs" / "providers.md"
ERRORS = ROOT / "docs" / "errors.md"
OPERATIONS = ROOT / "docs" / "operations.md"
YOUR_SHOP = ROOT / "docs" / "your-shop.md"
EFFECTS = ROOT / "docs" / "effects.schema.json"
ALERTS = ROOT / "docs" / "operations" / "alerts.yaml"
DASHBOARD = ROOT / "docs" / "operations" / "dashboard.json"

#: From the bottom up; also the order of the table of errors.
PACKAGES = (
    *(
        "statemachine",
        "storage",
        "providers",
        "fulfilment",
        "receiver",
        "worker",
        "poller",
        "audit",
        "service",
        "api",
        "console",
        "sandbox",
    ),
    "receipted",
)

_MARK = "<!-- generated: {} -->"
_END = "<!-- end -->"

_HEAD = f"""# Lifecycles

This page is generated from the code, by `python -m tests.repo.generate`; a test compares them.
`receipted lifecycles` prints the same, with `--mermaid` or `--json` for other uses.

States are in the provider's own words; the phase is what a state means to you.
A payment begins at one of the states marked so, or, since events are lost, is first heard of in any that follows.
Each lifecycle has one state more, which is ours: `{NOT_CREATED}`, in phase `failed`.
It is entered when the provider refuses a create call, and left for a beginning when a later one succeeds.
Why is in [ADR 0013](adr/0013-not-created.md).
"""


def lifecycles_page() -> str:
    """docs/lifecycles.md as it should be."""
    sections = (
        _section(kind, lifecycle, is_default=kind == provider.default_kind)
        for provider in PROVIDERS.values()
        for kind, lifecycle in provider.lifecycles.items()
    )
    return "\n".join([_HEAD, *sections])


_PROVIDERS_HEAD = """# Providers

This page is generated from the providers' pages, by `python -m tests.repo.generate`; a test compares them.
What speaks for each is from outside: a vector is a delivery signed by somebody else.
A sample is a body of somebody else, with what a person read in it.
What nothing speaks for is named as unproved; `receipted providers check <name>` compares again.
States and moves are in [lifecycles.md](lifecycles.md); [adding-a-provider.md](adding-a-provider.md) has one more made.
"""


def providers_page() -> str:
    """docs/providers.md as it should be."""
    rows = table(
        ("Provider", "Name", "Kinds", "States", "Rules of events", "Calls", "Vectors", "Samples", "Unproved"),
        map(_provider_row, PROVIDERS.values()),
    )
    made = (kind.with_options() for kind in PROVIDERS.values() if issubclass(kind, DeclaredProvider))
    return "\n".join([_PROVIDERS_HEAD, rows, "", *map(_provider_section, made)])


def _provider_row(kind: type[Provider]) -> Sequence[object]:
    made = kind(kind.options_type())
    states = sum(len(lifecycle.states) for lifecycle in made.lifecycles.values())
    common = (f"`{made.name}`", len(made.lifecycles), states)
    if not isinstance(made, DeclaredProvider):
        return (made.name.title(), *common, "code", len(made.capabilities()), "", "", "its own tests")
    proof, rules = prove(made), len(made.page.events.rule)
    return (made.title, *common, rules, len(made.capabilities()), proof.vectors, proof.samples, len(proof.unproved))


def _provider_section(made: DeclaredProvider) -> str:
    page, proof = made.page, prove(made)
    calls = ", ".join(f"`{call.value}`" for call in made.capabilities())
    register = f"Where no call registers: {made.how_to_register}.\n" if made.how_to_register else ""
    rules = table(("An event with", "is"), ((_rule_when(rule), _rule_words(rule)) for rule in page.events.rule))
    shown: dict[str, list[str]] = {}
    for vector in page.vector:
        shown.setdefault(vector.source, []).append("a vector")
    for sample in page.sample:
        shown.setdefault(sample.source, []).append(f"`{sample.file.rpartition('/')[2]}`")
    proofs = table(("From outside", "Origin"), ((", ".join(what), source) for source, what in shown.items()))
    unproved = "".join(f"- {words}\n" for words in proof.unproved)
    missing = f"\nUnproved:\n\n{unproved}" if unproved else "\nNothing is unproved.\n"
    signature = made.authentication.words if made.authentication else "none: a delivery is a reason to ask"
    return (
        f"## {made.title}\n\nSource: {page.provider.source}\n\n"
        f"Signature: {signature}.\nCalls: {calls}.\n{register}\n{rules}\n\n{proofs}\n{missing}"
    )


def _rule_when(rule: RuleSection) -> str:
    told = [f"`{where}` {_wanted(wanted)}" for where, wanted in rule.when.items()]
    return ", ".join(told) or "anything else"


def _wanted(wanted: object) -> str:
    if wanted in ("exists", "absent"):
        return str(wanted)
    if isinstance(wanted, list):
        return "one of " + ", ".join(f"`{each}`" for each in wanted)
    if isinstance(wanted, str) and wanted.startswith("~"):
        return f"like `{wanted[1:]}`".replace("|", "\\|")
    return f"= `{wanted}`"


def _rule_words(rule: RuleSection) -> str:
    of = f" of a {rule.kind}" if rule.kind else ""
    return {
        "state": f"the state{of}",
        "totals": f"the sums{of}: {', '.join(rule.totals)}",
        "part": f"a {rule.part.kind if rule.part else 'part'}{of}",
        "ask": f"a reason to ask{of}",
        "hint": "a hint, that is asked about",
        "note": "kept",
    }[rule.means]


def tabled(present: str) -> str:
    """The page as it should be, with the words between its generated tables as they are."""
    return re.sub(
        r"<!-- generated: (\w+) -->\n.*?<!-- end -->",
        lambda found: f"{_MARK.format(found[1])}\n{_TABLES[found[1]]()}\n{_END}",
        present,
        flags=re.DOTALL,
    )


def service_errors() -> list[type[ServiceError]]:
    """Every named failure of ours."""
    for package in PACKAGES:
        for _ in _modules(package):
            pass
    found = [ServiceError, *_below(ServiceError)]
    ours = [error for error in dict.fromkeys(found) if error.__module__.partition(".")[0] in PACKAGES]
    return sorted(
        ours, key=lambda error: (PACKAGES.index(error.__module__.partition(".")[0]), error.code, error.__name__)
    )


def _modules(package: str) -> Iterator[object]:
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, f"{package}."):
        if ".migrations" not in module.name:
            yield importlib.import_module(module.name)


def _below(error: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for child in error.__subclasses__():
        yield child
        yield from _below(child)


def _section(kind: str, lifecycle: Lifecycle, *, is_default: bool) -> str:
    default = f"\n`{kind}` is the kind of `receipted payments create` where none is given.\n" if is_default else ""
    rows = table(
        ("State", "Phase", "Begins", "Ends", "May become"),
        (
            (
                f"`{state.name}`",
                state.phase.value,
                _yes(state.name in lifecycle.initial),
                _yes(state.terminal),
                ", ".join(f"`{target}`" for target in lifecycle.moves.get(state.name, ())),
            )
            for state in lifecycle.states
        ),
    )
    return (
        f"## {lifecycle.name}\n{default}\n{rows}\n\n"
        f"Source: {lifecycle.source}\n\n```mermaid\n{diagram(lifecycle)}\n```\n"
    )


def _codes() -> str:
    return table(
        ("Code", "HTTP status", "Type", "Retry", "Meaning", "Class"),
        (
            (
                f"`{error.code}`",
                error.status,
                f"`{error.type}`",
                _yes(error.retryable),
                (error.__doc__ or "").strip().splitlines()[0],
                f"`{error.__name__}`",
            )
            for error in service_errors()
        ),
    )


def _alternative_payments() -> str:
    errors = AlternativePayments.with_options().page.errors
    rows = ((status, f"`{kind}`", _yes(int(status) in errors.retry)) for status, kind in errors.statuses.items())
    return table(("HTTP status", "Type", "Retry"), rows)


def _stable_genius() -> str:
    errors = StableGenius.with_options().page.errors
    rows = (
        (f"`{code}`", row.status, f"`{row.type}`", _yes(row.status in errors.retry))
        for code, row in errors.codes.items()
    )
    return table(("Code", "HTTP status", "Type", "Retry"), rows)


def _payfield() -> str:
    errors = Payfield.with_options().page.errors
    by_message = (
        (
            row.message + ("..." if row.is_prefix else ""),
            f"`{row.type}`",
            f"`{row.param}`" if row.param else "",
            _yes(bool(row.retry_on)),
        )
        for row in errors.messages
    )
    by_code = ((f"code `{code}`, any other message", f"`{row.type}`", "", "") for code, row in errors.codes.items())
    return table(("Message", "Type", "Param", "Retry"), (*by_message, *by_code))


def _banked() -> str:
    rows = ((f"`{code}`", f"`{row.type}`", _yes(row.may_retry)) for code, row in banked.CODES.items())
    return table(("Code", "Type", "Retry"), rows)


def _metrics() -> str:
    rows = (
        (
            f"`{metric}`",
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.labels),
            metric.of,
            metric.says,
        )
        for metric in METRICS
    )
    return table(("Metric", "Kind", "Labels", "Of the", "Says"), rows)


def effects_schema() -> str:
    """docs/effects.schema.json as it should be."""
    return json.dumps(schema_file(), indent=2) + "\n"


def _effects() -> str:
    return table(("Effect", "Meaning"), ((f"`{name}`", told) for name, told in effect_meanings().items()))


def _samples() -> str:
    at = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
    parts = (
        json.dumps(effect_schema.sample(effect, at, str(PAYMENT_FIELDS[0].example)), indent=2)
        for effect in ("payment.paid", "payment.refund_changed", "account.silent")
    )
    return "\n".join(f"```json\n{text}\n```" for text in parts)


def _fields(fields: Sequence[EffectField]) -> str:
    rows = ((f"`{field.name}`", _type_in_words(field), field.meaning) for field in fields)
    return table(("Field", "Type", "Meaning"), rows)


def _type_in_words(field: EffectField) -> str:
    schema = field.schema
    if "anyOf" in schema:
        return "object or null"
    types = schema["type"]
    words = " or ".join([types] if isinstance(types, str) else types)
    return f"{words}, {schema['format']}" if "format" in schema else words


_TABLES = {
    "effects": _effects,
    "samples": _samples,
    "envelope_fields": lambda: _fields(ENVELOPE_FIELDS),
    "payment_fields": lambda: _fields(PAYMENT_FIELDS),
    "part_fields": lambda: _fields(PART_FIELDS),
    "alarm_fields": lambda: _fields(ALARM_FIELDS),
    "metrics": _metrics,
    "codes": _codes,
    "alternative_payments": _alternative_payments,
    "stable_genius": _stable_genius,
    "payfield": _payfield,
    "banked": _banked,
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += (f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)
    return "\n".join(lines)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else ""


if __name__ == "__main__":
    LIFECYCLES.write_text(lifecycles_page(), encoding="utf-8")
    PROVIDERS_PAGE.write_text(providers_page(), encoding="utf-8")
    for page in (ERRORS, OPERATIONS, YOUR_SHOP):
        page.write_text(tabled(page.read_text(encoding="utf-8")), encoding="utf-8")
    EFFECTS.write_text(effects_schema(), encoding="utf-8")
    ALERTS.parent.mkdir(exist_ok=True)
    ALERTS.write_text(alerts_file(), encoding="utf-8")
    DASHBOARD.write_text(dashboard_file(), encoding="utf-8")
