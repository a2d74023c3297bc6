"""The same world in real time, with payments that wait for a person's click, until Ctrl-C."""

import asyncio
import contextlib
from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from receipted.demo.plan import CLICK
from receipted.demo.run import Demonstration
from receipted.demo.view import table
from receipted.loops import until_signalled
from statemachine.money import from_minor
from storage.tables import Payment

_STYLES = {"paid": "green", "settled": "green", "open": "", "processing": "yellow"}


async def keep_running(run: Demonstration, console: Console) -> None:
    """Show how all payments do, and those that wait for a click with their pages, as they change."""
    name, password = await asyncio.to_thread(run.person)
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
            waiting = [payment for payment in await run.payments() if (payment.reference or "").startswith(CLICK)]
            waiting.sort(key=lambda payment: payment.reference or "")
            announce(console, waiting, announced)
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


def announce(console: Console, payments: Iterable[Payment], announced: set[str]) -> None:
    """Print the checkout URL of each payment once, in one piece.

    A line of its own is left to the terminal to wrap, which then copies and opens the URL as one; a cell of a table
    would break it.
    """
    for payment in payments:
        page = payment.facts.get("payment_link") or payment.facts.get("url")
        if page and payment.id not in announced and payment.phase in ("open", "processing"):
            announced.add(payment.id)
            console.print(Text(f"{payment.reference}, pay here:", style="bold"))
            console.print(Text(str(page)), soft_wrap=True)
