"""What the simulated schedules came to: figures, the bars that are held against them, and the table for docs/."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.benchmarks.polling.bound import least_mean_delay
from tests.benchmarks.polling.schedules import Asker, Exponential, Fixed, Ours, RoundRobin
from tests.benchmarks.polling.simulate import simulate
from tests.benchmarks.polling.workloads import DAY, HOUR, WORKLOADS, Workload

BUDGETS: Final = (1.0, 5.0)
SEED: Final = 1
DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "polling.md"

_FRUGAL: Final = ("lognormal", 1.0, Exponential.name)

_BEGIN, _END = "<!-- made by make bench-poll -->", "<!-- end -->"


def askers() -> tuple[Asker, ...]:
    """The schedules, anew."""
    return RoundRobin(), Fixed(), Exponential(), Ours(learns=False), Ours(learns=True)


@dataclass(frozen=True, slots=True)
class Figures:
    """One schedule on one workload and budget, after the first simulated day."""

    workload: str
    budget: float
    schedule: str
    mean: float
    p50: float
    p95: float
    p99: float
    questions: int
    bound: float  #: of the square-root law; the push workload's counts every payment as if there were no push
    after_shift: float | None  #: mean delay of what was paid from six to eighteen hours after the shift


def measure(workload: Workload, budget: float, number: int) -> Figures:
    """The figures of the schedule with that number; the same for the same seed."""
    asker = askers()[number]
    run = simulate(workload, workload.changes(SEED), asker, budget)
    until = workload.half_time if workload.after else workload.days * DAY
    delays = run.of(DAY, until)
    shift = workload.half_time
    later = run.of(shift + 6 * HOUR, shift + 18 * HOUR) if workload.after else []
    return Figures(
        workload.name,
        budget,
        asker.name,
        sum(delays) / len(delays),
        _quantile(delays, 0.5),
        _quantile(delays, 0.95),
        _quantile(delays, 0.99),
        run.questions,
        least_mean_delay(workload.before, workload.arrivals, budget),
        sum(later) / len(later) if later else None,
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise, and what was measured."""

    promise: str
    measured: float
    bar: float

    @property
    def is_kept(self) -> bool:
        """Whether it holds."""
        return self.measured <= self.bar

    def __str__(self) -> str:
        return f"{'kept  ' if self.is_kept else 'BROKEN'} {self.promise}: {self.measured:.3f}, at most {self.bar:.3f}"


def as_few(found: Sequence[Figures]) -> tuple[Workload, float, int]:
    """What to measure besides: ours, learning, allowed only as many questions as the exponential schedule asked."""
    exponential = next(one for one in found if (one.workload, one.budget, one.schedule) == _FRUGAL)
    return WORKLOADS[0], exponential.questions / (WORKLOADS[0].days * DAY), 4


def bars(found: Sequence[Figures], frugal: Figures) -> list[Bar]:
    """Every promise."""
    by = {(one.workload, one.budget, one.schedule): one for one in found}
    others = [asker.name for asker in askers()[:3]]
    given, learning = (asker.name for asker in askers()[3:])

    def of(schedule: str, workload: str = "lognormal", budget: float = 1.0) -> Figures:
        return by[workload, budget, schedule]

    kept = [
        Bar("mean delay / round robin's", of(learning).mean / of(others[0]).mean, 1 / 8),
        Bar("questions / round robin's", of(learning).questions / of(others[0]).questions, 1.0),
        Bar("mean delay / exponential's, with as few questions", frugal.mean / of(others[2]).mean, 1 / 3),
        Bar("questions / exponential's", frugal.questions / of(others[2]).questions, 1.0),
        Bar("learning / knowing, after the first day", of(learning).mean / of(given).mean, 1.15),
        Bar("hazard given / the numeric bound", of(given).mean / of(given).bound, 1.25),
        Bar("learning / the numeric bound", of(learning).mean / of(learning).bound, 1.25),
    ]
    for budget in BUDGETS:
        shifted, known = of(learning, "shift", budget).after_shift, of(given, "shift", budget).after_shift
        if shifted is not None and known is not None:
            kept.append(Bar(f"six hours after the shift, learning / knowing, {budget:g}/s", shifted / known, 1.3))
    for workload in WORKLOADS:
        for budget in BUDGETS:
            best = min(of(name, workload.name, budget).mean for name in others)
            ours = of(learning, workload.name, budget).mean
            kept.append(Bar(f"{workload.name} at {budget:g}/s, learning / the best other", ours / best, 1.0))
    return kept


def table(found: Sequence[Figures]) -> str:
    """The figures as Markdown."""
    lines = []
    for workload in WORKLOADS:
        for budget in BUDGETS:
            rows = [one for one in found if (one.workload, one.budget) == (workload.name, budget)]
            is_bounded = workload.push_loss is None
            bound = f"; the square-root law's bound is {rows[0].bound:.0f} s" if is_bounded else ""
            allowed = f"{budget:g} question{'s' if budget > 1 else ''} a second"
            lines += [
                f"**{workload.name}** ({workload.about}), {allowed}{bound}",
                "",
                "| schedule | mean | p50 | p95 | p99 | questions |" + (" after the shift |" if workload.after else ""),
                "|---|---:|---:|---:|---:|---:|" + ("---:|" if workload.after else ""),
            ]
            for one in rows:
                after = f" {one.after_shift:.0f} |" if one.after_shift is not None else ""
                lines.append(
                    f"| {one.schedule} | {one.mean:.0f} | {one.p50:.0f} | {one.p95:.0f} | {one.p99:.0f} "
                    f"| {one.questions:,} |{after}"
                )
            lines.append("")
    return "\n".join(lines)


def write(found: Sequence[Figures], kept: Sequence[Bar]) -> None:
    """The document holds the table and the promises."""
    text = DOCUMENT.read_text()
    head, rest = text.split(_BEGIN)
    tail = rest.split(_END)[1]
    promises = "\n".join(f"| {one.promise} | {one.measured:.3f} | {one.bar:.3f} |" for one in kept)
    made = f"{table(found)}\n| promise | measured | at most |\n|---|---:|---:|\n{promises}\n"
    DOCUMENT.write_text(f"{head}{_BEGIN}\n\n{made}\n{_END}{tail}")
