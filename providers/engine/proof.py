"""Proof of a page from outside: vectors signed by others, and official bodies."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import asdict

from providers.contract import Delivery, Reading, Statement
from providers.engine.page import Sample, Vector
from providers.engine.provider import DeclaredProvider
from providers.engine.signature import signed_headers
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from statemachine.lifecycle import Lifecycle
from statemachine.observation import Observation
from statemachine.phases import Phase, Source
from statemachine.sums import Part, is_refund_of_part, phase_with_sums

#: When samples are read as received; their own times are what they state.
_RECEIVED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)

#: Modes of `[signature]` that nobody but the provider can make, so that a vector can be wrong.
_SIGNED: Final = ("hmac", "standard_webhooks")

#: Phases in which a wrong state costs money, so that each needs a sample before an account may be live.
_MONEY: Final = frozenset({Phase.PAID, Phase.SETTLED, Phase.REFUNDED})


@dataclass(frozen=True, slots=True)
class PageProof:
    """Result of checking a page against what others signed and wrote."""

    faults: tuple[str, ...]  #: the page contradicts a vector or a sample
    unproved: tuple[str, ...]  #: nothing from outside speaks for it
    money_unproved: tuple[str, ...]  #: of these, what costs money where it is wrong
    vectors: int
    samples: int

    @property
    def is_proved(self) -> bool:
        """Return whether nothing is wrong and no money rests on the page alone."""
        return not self.faults and not self.money_unproved


def prove(provider: DeclaredProvider) -> PageProof:
    """Check a provider's page against its vectors and samples; changes nothing.

    A fault of a vector or a sample names it; a file that cannot be read is one too.
    """
    page, faults = provider.page, []
    for place, vector in enumerate(page.vector):
        faults += [f"vector {place + 1} ({vector.source}): {fault}" for fault in _vector_faults(provider, vector)]
    seen_states: set[tuple[str, str]] = set()
    seen_parts: set[tuple[str, str]] = set()
    seen_rules: set[int] = set()
    for sample in page.sample:
        try:
            body = (provider.source.folder / sample.file).read_bytes()
        except OSError as fault:
            faults.append(f"sample {sample.file}: {type(fault).__name__}")
            continue
        statement = _statement(sample, body)
        reading = provider.parse(statement)
        faults += [f"sample {sample.file}: {fault}" for fault in _sample_faults(provider, sample, reading)]
        seen_states |= {(o.kind, o.status) for o in reading.observations if o.kind and o.status}
        seen_parts |= {(part.kind, part.status) for o in reading.observations for part in o.parts}
        rule = provider.rule_of(statement)
        if rule is not None:
            seen_rules.add(rule)
    money, rest = _unproved(provider, seen_states, seen_rules)
    rest += _unproved_parts(provider, seen_parts)
    return PageProof(tuple(faults), (*money, *rest), tuple(money), len(page.vector), len(page.sample))


def _vector_faults(provider: DeclaredProvider, vector: Vector) -> Iterator[str]:
    body = vector.body.encode()
    if vector.file:
        try:
            body = (provider.source.folder / vector.file).read_bytes()
        except OSError as fault:
            yield f"{vector.file}: {type(fault).__name__}"
            return
    if vector.options:
        provider = type(provider).with_options(**vector.options)
    headers = tuple((name.lower(), value) for name, value in vector.headers.items())
    now = _RECEIVED_AT if vector.at is None else datetime.fromtimestamp(vector.at, UTC)
    right = KeyRing((Key("vector", vector.key.encode()),))

    def verdict(delivered: bytes, given: tuple[tuple[str, str], ...]) -> str | None:
        try:
            provider.verify(Delivery(delivered, given), right, Window(), now)
        except DeliveryRejected as rejection:
            return rejection.reason
        return None

    reason = verdict(body, headers)
    if reason is not None:
        yield f"it is rejected: {reason}"
        return
    is_signed = provider.page.signature.mode in _SIGNED
    if is_signed and verdict(body + b" ", headers) is None:
        yield "a changed body is accepted"
    for name, value in headers:
        changed = value[:-1] + ("0" if value[-1:] != "0" else "1")
        spoilt = tuple((each, changed if each == name else told) for each, told in headers)
        if is_signed and name in signed_headers(provider.page.signature) and verdict(body, spoilt) is None:
            yield f"a changed {name} is accepted"


def _statement(sample: Sample, body: bytes) -> Statement:
    source = Source(sample.by)
    is_answer = source not in (Source.WEBHOOK, Source.CALLBACK)
    said = sample.reads.get("id") if source in (Source.CAPTURE, Source.REFUND) else None  # as the call named it
    ref, status = (said if isinstance(said, str) else None), 200 if is_answer else None
    return Statement(source, body, _RECEIVED_AT, kind=sample.kind or None, ref=ref, http_status=status)


def _sample_faults(provider: DeclaredProvider, sample: Sample, reading: Reading) -> Iterator[str]:
    wanted = dict(sample.reads)
    if reading.unreadable:
        yield f"it cannot be read: {reading.unreadable}"
        return
    if "hints" in wanted or "note" in wanted:
        if reading.observations:
            yield f"it states something about {reading.observations[0].provider_ref!r}"
        found: Mapping[str, object] = {"hints": list(reading.hints), "note": bool(reading.note)}
        yield from _differences(wanted, {name: found.get(name) for name in wanted})
        return
    if not reading.observations:
        yield f"it states nothing: {reading.note or 'hints only'}"
        return
    seen = reading.observations[0]
    lifecycle = provider.lifecycles.get(seen.kind or "")
    is_known = lifecycle is not None and seen.status is not None and lifecycle.knows(seen.status)
    told = {
        "kind": seen.kind,
        "id": seen.provider_ref,
        "state": seen.status,
        "phase": _phase(lifecycle, seen).value if lifecycle is not None and is_known else None,
        "amount_minor": seen.amount_minor,
        "currency": seen.currency,
        "reference": seen.reference,
        **asdict(seen.sums),
        "parts": [_part_words(part) for part in seen.parts],
    }
    unknown = sorted(wanted.keys() - told.keys())
    if unknown:
        yield f"nothing is called {unknown[0]!r}; there are {', '.join(told)}, hints and note"
        return
    yield from _differences(wanted, told)
    if "id" not in wanted or (seen.status is not None and "state" not in wanted):
        yield "what it reads must name id and state"


def _part_words(part: Part) -> str:
    """Write a part as samples do: kind, id, status, and its amount where that is said."""
    amount = "" if part.amount_minor is None else f" {part.amount_minor}"
    return f"{part.kind.value} {part.name} {part.status.value}{amount}"


def _phase(lifecycle: Lifecycle, seen: Observation) -> Phase:
    """Return the phase by a first word: "refunded" of a part leaves the rest paid."""
    phase = phase_with_sums(lifecycle.phase(seen.status), seen.sums, seen.amount_minor)
    is_part = phase is Phase.REFUNDED and lifecycle.is_paid_first and is_refund_of_part(seen.sums, seen.amount_minor)
    return Phase.PAID if is_part else phase


def _differences(wanted: Mapping[str, object], told: Mapping[str, object]) -> Iterator[str]:
    for name, value in wanted.items():
        if told.get(name) != value or type(told.get(name)) is not type(value):
            yield f"{name} is {value!r}, and the page reads {told.get(name)!r}"


def _unproved(provider: DeclaredProvider, states: set[tuple[str, str]], rules: set[int]) -> tuple[list[str], list[str]]:
    page = provider.page
    money: list[str] = []
    rest: list[str] = []
    if page.signature.mode in _SIGNED and not page.vector:
        money.append("no vector shows a signature made by somebody else")
    has_amount = any("amount_minor" in sample.reads for sample in page.sample)
    if not has_amount:
        money.append("no sample states an amount")
    for kind, lifecycle in provider.lifecycles.items():
        for state in lifecycle.states:
            if (kind, state.name) not in states:
                words = f"no sample shows a {kind} that is {state.name}"
                (money if state.phase in _MONEY else rest).append(words)
    for place, rule in enumerate(page.events.rule):
        if place not in rules and rule.means != "note":
            rest.append(f"no sample is read by event rule {place + 1} ({rule.means})")
    return money, rest


def _unproved_parts(provider: DeclaredProvider, seen: set[tuple[str, str]]) -> list[str]:
    page = provider.page
    sections = [rule.part for rule in page.events.rule if rule.part is not None]
    sections += [part for kind in page.kind.values() for part in kind.part]
    wanted = dict.fromkeys((part.kind, status) for part in sections for status in part.states.values())
    return [f"no sample shows a {kind} that is {status}" for kind, status in wanted if (kind, status) not in seen]
