"""`receipted demo`: run live with a table and proof, or wait for clicks."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from audit.verify import AuditReport
from receipted import logs
from receipted.cli.exits import InvalidInput
from receipted.demo.plan import CLICK_PREFIX, PROVIDERS, SHOP_SECRET, Order, orders, sandbox_config
from receipted.demo.results import NAMES, DemoFigures, Mismatch, sources_table, table
from receipted.demo.run import Demonstration
from receipted.runtime import until_signalled
from sandbox.process import outside
from statemachine.money import from_minor
from statemachine.phases import MOVING_PHASES
from storage.tables import Payment

_STYLES = {"paid": "green", "settled": "green", "open": "", "processing": "yellow", "authorised": "yellow"}

#: The shop's own share of failures.
_SHOP_FAILURES = 0.1

#: With --keep-running: how many payments wait for a click, and how fast time runs for the providers and for asking.
_CLICK_PAYMENTS = 12
_CLICKING_SPEED = 1.0
_ASKING_SPEED = 4.0

#: Characters that the table needs in full.
_TABLE_WIDTH = 100


async def run_until_stopped(run: Demonstration, console: Console) -> None:
    """Show all payments, and the checkout pages of those that wait for a click."""
    name, password = await asyncio.to_thread(run.add_console_user)
    console.print(f"The console                  http://127.0.0.1:{run.port}/console/")
    console.print(f"Log in there as              {name}, with the password {password}")
    console.print(f"Receipted takes webhooks at  http://127.0.0.1:{run.port}/webhooks/ACCOUNT")
    console.print(f"All open payments to click   {run.outside.sandbox_url}/checkout")
    console.print(f"What the shop fulfilled      {run.outside.shop_url}/orders")
    console.print(f"Another terminal             receipted --config {run.shown_settings_file} payments list")
    console.print("Pay, decline or let expire; simulated payers see to the rest. Ctrl-C ends it.\n")
    announced: set[str] = set()
    with until_signalled() as stop, Live(console=console, refresh_per_second=4) as live:
        while not stop.is_set():
            waiting = [
                payment for payment in await run.payments() if (payment.reference or "").startswith(CLICK_PREFIX)
            ]
            waiting.sort(key=lambda payment: payment.reference or "")
            print_checkout_urls(console, waiting, announced)
            counts = table(await run.figures([]), "", is_final=False)
            live.update(Group(counts, _table(waiting, await run.fulfilled())))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.5)


def _table(payments: list[Payment], fulfilled: dict[str, int]) -> Table:
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in ("order", "account", "amount", "state", "shop"):
        made.add_column(heading, overflow="fold", justify="right" if heading == "amount" else "left")
    for payment in payments:
        amount = ""
        if payment.amount_minor is not None and payment.currency is not None:
            amount = f"{from_minor(payment.amount_minor, payment.currency)} {payment.currency}"
        state = f"{payment.state or 'asked for'}{f', needs review: {payment.review}' if payment.review else ''}"
        made.add_row(
            payment.reference,
            payment.account,
            amount,
            f"[{_STYLES.get(payment.phase, 'red')}]{state}[/]" if _STYLES.get(payment.phase, "red") else state,
            "fulfilled" if fulfilled.get(payment.id) else "",
        )
    return made


def print_checkout_urls(console: Console, payments: Iterable[Payment], announced: set[str]) -> None:
    """Print the checkout URL of each payment once, in one piece.

    A line of its own is left to the terminal to wrap, which then copies and opens the URL as one; a cell of a table
    would break it.
    """
    for payment in payments:
        page = payment.facts.get("payment_link") or payment.facts.get("url")
        if page and payment.id not in announced and payment.phase in MOVING_PHASES:
            announced.add(payment.id)
            console.print(Text(f"{payment.reference}, pay here:", style="bold"))
            console.print(Text(str(page)), soft_wrap=True)


def demo(
    payments: Annotated[int, typer.Option(min=1, help="How many payments to order.")] = 400,
    seed: Annotated[int, typer.Option(help="Which faults and payers; 0 takes a new one, and prints it.")] = 20,
    speed: Annotated[float, typer.Option(min=1, help="How much faster the providers' time runs.")] = 100.0,
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="In real time, with payments for you to click, until Ctrl-C.")
    ] = False,
    lose_all: Annotated[
        list[str] | None,
        typer.Option("--lose-all", metavar="PROVIDER", help="Lose its every webhook; may be repeated."),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the database and its settings are left.")] = Path("var/demo"),
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds after the last order until what is not right counts as wrong.")
    ] = 55.0,
) -> None:
    """Order payments at four misbehaving providers, and prove that all ended right.

    Exit code 0 only if every payment equals its provider's own record, every paid one was fulfilled exactly once as
    the shop counts it, and the audit finds no fault.
    """
    lost_providers = _providers(lose_all or [])
    chosen = seed or int(time.time())
    logs.configure("error", "console")
    console = Console()
    if not console.is_terminal:
        console = Console(width=_TABLE_WIDTH)  # a file or pipe has no width of its own
    if keep_running:
        slow = sandbox_config(chosen, _CLICKING_SPEED, lost_providers)
        with outside(slow, SHOP_SECRET, shop_failures=_SHOP_FAILURES) as world:
            run = Demonstration(slow, world, folder.absolute(), patience_speed=_ASKING_SPEED)
            asyncio.run(_run_clickable(run, console, payments, chosen))
        return
    config = sandbox_config(chosen, speed, lost_providers)
    console.print(f"[bold]Receipted demo[/]: {payments} payments, seed {chosen}, the providers' time runs {speed:g}x")
    if lost_providers:
        console.print(f"Every webhook is lost of: {', '.join(NAMES[provider] for provider in lost_providers)}")
    with outside(config, SHOP_SECRET, shop_failures=_SHOP_FAILURES) as world:
        run = Demonstration(config, world, folder.absolute())
        is_correct = asyncio.run(_run(run, console, orders(payments, chosen), patience, lost_providers))
    raise typer.Exit(0 if is_correct else 1)


def _providers(named: list[str]) -> tuple[str, ...]:
    """Return the named providers, each once; raises InvalidInput with the known ones."""
    unknown = [name for name in named if name not in PROVIDERS]
    if unknown:
        raise InvalidInput(f"no provider {unknown[0]!r}; there are: {', '.join(PROVIDERS)}", param="lose-all")
    return tuple(dict.fromkeys(named))


async def _run(
    run: Demonstration, console: Console, wanted: list[Order], patience: float, lost_providers: Collection[str]
) -> bool:
    started = time.monotonic()
    async with run.running() as commands:
        with Live(console=console, refresh_per_second=4) as live:
            showing = asyncio.create_task(_keep_showing(run, live, started))
            await run.order(commands, wanted)
            wrong = await run.settle(commands, time.monotonic() + patience)
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
            figures = await run.figures(wrong)
            live.update(table(figures, _title(started), is_final=True))
        if not console.is_terminal:
            console.print()  # rich ends a live display without a newline there
        console.print(sources_table(await run.sources(), lost_providers))
        report = await run.audit()
        _print_results(run, console, figures, wrong, report, await run.outcomes())
        await _print_next(run, console)
    return not wrong and not report.faults


async def _run_clickable(run: Demonstration, console: Console, count: int, seed: int) -> None:
    async with run.running() as commands:
        await run.order(commands, orders(_CLICK_PAYMENTS, seed, CLICK_PREFIX))
        ordering = asyncio.create_task(run.order(commands, orders(count, seed)))
        try:
            await run_until_stopped(run, console)
        finally:
            ordering.cancel()
            await asyncio.gather(ordering, return_exceptions=True)


async def _keep_showing(run: Demonstration, live: Live, started: float) -> None:
    while True:
        live.update(table(await run.figures([]), _title(started), is_final=False))
        await asyncio.sleep(0.5)


def _title(started: float) -> str:
    return f"after {time.monotonic() - started:.1f} s"


def _print_results(
    run: Demonstration,
    console: Console,
    figures: DemoFigures,
    wrong: list[Mismatch],
    report: AuditReport,
    outcomes: dict[str, dict[str, int]],
) -> None:
    done: dict[str, int] = {}
    for counts in outcomes.values():
        for name, number in counts.items():
            done[name] = done.get(name, 0) + number
    console.print("The providers: " + ", ".join(f"{number} {name}" for name, number in sorted(done.items())) + ".")
    reviews = ", ".join(f"{number} {review}" for review, number in sorted(run.resolved.items())) or "none"
    console.print(f"Reviews that an operator resolved, with a reason: {reviews}.")
    for fault in wrong[:20]:
        console.print(f"[red]wrong[/]: {fault.account} {fault.payment}: {fault.problem}")
    if report.first is not None:
        console.print(f"[red]audit[/]: {report.first.table} {report.first.row}: {report.first.problem}")
    verdict = "[green]right[/]" if not wrong and not report.faults else "[red]WRONG[/]"
    console.print(
        f"Audit: {report.payments} payments, {report.transitions} transitions, {report.messages} messages, "
        f"{report.signatures} signatures verified again, {len(report.faults)} faults."
    )
    console.print(
        f"Everything is {verdict}: {len(wrong)} of {sum(c.phases.total() for c in figures.counts.values())} wrong."
    )


async def _print_next(run: Demonstration, console: Console) -> None:
    """Print how to look at what the demonstration left behind."""
    name, password = await asyncio.to_thread(run.add_console_user)
    console.print(f"Look around: receipted --config {run.shown_settings_file} payments list", soft_wrap=True)
    console.print(f"The console: receipted --config {run.shown_settings_file} web", soft_wrap=True)
    console.print(f"       then  http://127.0.0.1:{run.port}/console/, as {name}, password {password}", soft_wrap=True)
