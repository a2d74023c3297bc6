"""`make bench-pages`: every page of the console and every list of the API over HTTP, with a million payments.

The pages are those of the console's routes and the filters those of its tables, so that what is added is measured too.
"""

import argparse
import itertools
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx2
from starlette.routing import BaseRoute, Route

from api.application import operations
from console.application import ConsoleRoute as Routed
from console.application import routes
from console.tables.base import ConsoleTable
from console.tables.routes import tables
from receipted.web_wiring import WebServices, console_deps
from receipted.wiring import Service
from tests.benchmarks import events, report
from tests.benchmarks.config import ROOT, settings
from tests.benchmarks.databases import BOTH, Databases, size
from tests.benchmarks.figures import Table, number
from tests.benchmarks.peopled import NAME, PASSWORD, Peopled, peopled
from tests.benchmarks.report import About, markdown
from tests.benchmarks.servers import served
from tests.benchmarks.worker import NAMES

DOCUMENT: Final = ROOT / "docs" / "performance-pages.md"
_MARK: Final = "<!-- made by make bench-pages -->"

#: What p95 should stay below, in milliseconds.
BOUND: Final = 200.0

_PAYMENTS: Final = 1_000_000
_TIMES: Final = 30

#: Pages that answer for as long as somebody listens, or that send a whole history: they are no pages to wait for.
_STREAMED: Final = re.compile(r"/(live|export)$")

#: What a page wants to be asked, where it wants anything.
_QUERIES: Final = {"/console/money": "?day={day}&account={account}&currency=USD&way=in&kind=payment_intent"}

_API: Final = (
    *(f"payments?phase={phase}" for phase in ("paid", "failed", "expired", "refunded", "open")),
    "payments?in_review=true",
    "payments?reference={reference}",
    "payments?provider_ref={provider_ref}",
    *(f"inbox?status={status}" for status in ("pending", "decided", "parked", "dead")),
    *(f"outbox?status={status}" for status in ("pending", "delivered", "dead")),
    "inbox?payment={payments}",
    "outbox?payment={payments}",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One page, and what must be on it."""

    path: str
    has: str = ""
    is_api: bool = False


@dataclass(frozen=True, slots=True)
class Timed:
    """How long one page takes, in milliseconds."""

    path: str
    p50: float
    p95: float
    kilobytes: float


def pages(filled: Peopled) -> Iterator[Asked]:
    """Everything that is measured."""
    service = Service(settings(filled.url))
    try:
        deps = console_deps(service, WebServices(service))
        (routed,) = routes(deps)
        assert isinstance(routed, Routed)
        for path in _paths(routed._router.routes):
            if not _STREAMED.search(path):
                yield Asked(_filled(path, filled), "<h1" if "/body" not in path else "")
        found = tables(deps)
    finally:
        service.close()
    for table in found:
        yield from _of_table(table, filled)
    for operation in operations():
        if operation.method == "GET" and "{" not in operation.path and operation.operation_id.startswith("list_"):
            yield Asked(operation.path, '"object"', is_api=True)
    named = {"reference": filled.reference, "provider_ref": filled.provider_ref, **filled.ids}
    for query in _API:
        yield Asked(f"/v1/{query.format_map(named)}", '"data"', is_api=True)


def _paths(routes: Sequence[BaseRoute]) -> Iterator[str]:
    """Yield the paths of pages by the routes; those of the tables come from the tables."""
    for route in routes:
        if not isinstance(route, Route) or route.path.startswith(("/console/static", "/console/tables")):
            continue
        if "GET" in (route.methods or ()):
            yield route.path


def _filled(path: str, filled: Peopled) -> str:
    """The path of one thing in the middle."""
    kind = path.split("/")[2]
    path += _QUERIES.get(path, "").format(day=f"{datetime.now(UTC):%Y-%m-%d}", account=events.ACCOUNT)
    return path.replace("{id}", filled.ids.get(kind, filled.ids["payments"])).replace("{name}", events.ACCOUNT)


def _of_table(table: ConsoleTable, filled: Peopled) -> Iterator[Asked]:
    here = f"/console/tables/{table.key}"
    yield Asked(f"{here}/list", "<table")
    yield Asked(f"{here}/list?sort=id__asc", "<table")
    yield Asked(f"{here}/list?page_size=100", "<table")
    about = table.key if table.key in filled.ids else "payments"
    yield Asked(f"{here}/list?after={filled.ids[about]}", "<h1")
    yield Asked(f"{here}/list?until=2001-01-01", "<h1")
    for field in table.filters:
        for option in field.options or ("none-such",):
            yield Asked(f"{here}/list?{field.name}={quote(option)}", "<h1")
    names = {filled.ids[about]: table.key in filled.ids, "order-none": False}
    if table.key in ("payments", "audit", "inbox", "outbox"):
        names |= {filled.reference: True, filled.provider_ref: True}
    for words, is_found in names.items():
        yield Asked(f"{here}/list?q={quote(words)}", "<table" if is_found else "<h1")
    if table.detail_template:
        yield Asked(f"{here}/detail?pk={filled.ids[table.key]}", "<h1")


def measure(filled: Peopled, log: Path, faults: list[str]) -> list[Timed]:
    """Every page, so often one after the other, from one browser that is logged in."""
    asked = list(pages(filled))
    with served("web", filled.url, log=log) as server:
        base = f"http://127.0.0.1:{server.port}"
        with httpx2.Client(base_url=base, timeout=60) as browser, httpx2.Client(base_url=base, timeout=60) as caller:
            _log_in(browser, base)
            keys = itertools.cycle(filled.api_keys)
            timed = []
            for one in asked:
                caller.headers["authorization"] = f"Bearer {next(keys)}"
                timed.append(_timed(caller if one.is_api else browser, one, faults))
    return [each for each in timed if each is not None]


def _log_in(browser: httpx2.Client, base: str) -> None:
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', browser.get("/console/login").text))
    said = {**form, "name": NAME, "password": PASSWORD}
    answer = browser.post("/console/login", data=said, headers={"origin": base, "sec-fetch-site": "same-origin"})
    if answer.status_code != 303 or "login" in answer.headers["location"]:
        raise RuntimeError(f"nobody could log in: {answer.status_code} {answer.text[:500]}")


def _timed(client: httpx2.Client, asked: Asked, faults: list[str]) -> Timed | None:
    taken = []
    answer = client.get(asked.path)
    if answer.status_code == 303:
        return None
    for _ in range(_TIMES):
        began = time.perf_counter()
        answer = client.get(asked.path)
        taken.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200 or asked.has not in answer.text:
            faults.append(f"{asked.path}: {answer.status_code}, without {asked.has!r}: {answer.text[:300]!r}")
            return None
    p95 = statistics.quantiles(taken, n=20)[-1]
    print(f"  {p95:7.1f} ms  {asked.path}", flush=True)
    return Timed(asked.path, statistics.median(taken), p95, len(answer.content) / 1024)


def tabled(kind: str, found: Sequence[Timed], filled: Peopled) -> Table:
    """The pages of one database, the slowest first."""
    rows = [
        (f"`{_shown(each.path, filled)}`", number(each.p50), number(each.p95), number(each.kilobytes))
        for each in sorted(found, key=lambda each: -each.p95)
    ]
    title = f"{NAMES[kind]}, {filled.payments:,} payments, {size(filled.url) / 2**30:.1f} GiB"
    return Table(title, ("page", "p50 ms", "p95 ms", "KiB"), rows)


def _shown(path: str, filled: Peopled) -> str:
    """Without the ids of this run."""
    for row_id in filled.ids.values():
        path = path.replace(row_id, "ID")
    return path.replace(filled.provider_ref, "PROVIDER_REF").replace(filled.reference, "REFERENCE")


def write(about: About, results: Sequence[tuple[str, Peopled, Sequence[Timed]]]) -> None:
    """The document has the figures between the marks."""
    chapters = [str(about)]
    for kind, filled, found in results:
        worst = max(found, key=lambda each: each.p95)
        over = [each for each in found if each.p95 > BOUND]
        chapters.append(
            f"On {NAMES[kind]} {len(found) - len(over)} of {len(found)} pages have a p95 of at most {BOUND:.0f} ms; "
            f"the slowest is `{_shown(worst.path, filled)}` with {number(worst.p95)} ms."
        )
    for kind, filled, found in results:
        table = tabled(kind, found, filled)
        chapters.append(f"## {table.title}\n\n{markdown(table)}")
    head, _, rest = DOCUMENT.read_text().partition(_MARK)
    _, _, tail = rest.partition(report.END)
    made = "\n\n".join(chapters)
    DOCUMENT.write_text(f"{head}{_MARK}\n\n{made}\n\n{report.END}{tail}")


def main(arguments: Sequence[str]) -> int:
    """Print and write what was measured; 1 where an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pages", description="measure every page")
    parser.add_argument("--payments", type=int, default=_PAYMENTS)
    parser.add_argument("--databases", nargs="+", choices=BOTH, default=BOTH)
    parser.add_argument("--no-document", action="store_true", help="leave the document as it is")
    options = parser.parse_args(arguments)
    started, load, faults = time.monotonic(), os.getloadavg()[0], list[str]()
    databases, results = Databases(), []
    try:
        for kind in options.databases:
            filled = peopled(databases.fresh(kind), options.payments)
            print(f"{NAMES[kind]}: {options.payments:,} payments, {time.monotonic() - started:.0f} s", flush=True)
            found = measure(filled, databases.folder / "pages.log", faults)
            results.append((kind, filled, found))
        about = About.here(databases.version(), _TIMES, time.monotonic() - started, load)
        for kind, filled, found in results:
            print(f"\n{NAMES[kind]}\n{markdown(tabled(kind, found, filled))}")
        if not options.no_document:
            write(about, results)
    finally:
        databases.close()
    for fault in faults:
        print(f"WRONG  {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
