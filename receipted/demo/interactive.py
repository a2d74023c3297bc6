"""The same world in real time, with payments that wait for a person's click, until Ctrl-C."""

import asyncio
import contextlib

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

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
    with until_signalled() as stop, Live(console=console, refresh_per_second=4) as live:
        while not stop.is_set():
            waiting = [payment for payment in await run.payments() if (payment.reference or "").startswith(CLICK)]
            waiting.sort(key=lambda payment: payment.reference or "")
            counts = table(await run.figures([]), "", is_final=False)
            live.update(Group(counts, _table(run, waiting, await run.fulfilled())))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.5)


def _table(run: Demonstration, payments: list[Payment], fulfilled: dict[str, int]) -> Table:
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for heading in ("order", "account", "amount", "state", "shop", "pay here"):
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
            "" if payment.phase not in ("open", "processing") else _page(run, payment),
        )
    return made


def _page(run: Demonstration, payment: Payment) -> str:
    return payment.facts.get("payment_link") or payment.facts.get("url") or f"{run.outside.sandbox_url}/checkout"
