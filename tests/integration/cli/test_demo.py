"""What `receipted demo` says before it begins; tests/e2e/test_demo.py runs it."""

from collections import Counter
from io import StringIO

import pytest
from rich.console import Console

from receipted.cli.exits import Exit
from receipted.demo.command import print_checkout_urls
from receipted.demo.plan import PROVIDERS, sandbox_config
from receipted.demo.results import sources_table
from tests.support.builders import a_payment

from .conftest import Shell


def test_a_provider_that_does_not_exist_is_refused():
    """Before anything is started; the names that there are are listed."""
    typed = Shell(None)("demo", "--lose-all", "acme_pay", code=Exit.USAGE)

    assert "no provider 'acme_pay'" in typed.err
    assert all(provider in typed.err for provider in PROVIDERS)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_face_of_the_provider_loses_its_webhooks(provider):
    """The sandbox plays Payfield's dialects as two; both are silent, and nobody else is."""
    config = sandbox_config(1, 100, [provider])

    assert config.lose_all
    assert all(name.startswith(provider) for name in config.lose_all)
    assert sandbox_config(1, 100).lose_all == ()


def test_the_table_shows_what_there_is():
    """Pushed and asked always, the other ways where there are any, and who was silent."""
    heard = {"genius": Counter(pushed=3, hinted=1), "banked": Counter(asked=2), "banked-v3": Counter(asked=5)}
    console = Console(width=100, file=StringIO())
    console.print(sources_table(heard, ["banked"]))
    shown = console.file.getvalue()

    assert "after" in shown
    assert "return" not in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["Stable", "Genius", "3", "1", "0"] in lines
    assert ["Banked,", "every", "webhook", "lost", "0", "0", "7"] in lines
    assert ["Payfield", "0", "0", "0"] in lines


def test_a_page_to_pay_at_is_told_once_and_in_one_piece():
    """However narrow the terminal is: it wraps the line by itself, and copies it as one."""
    pages = [f"http://127.0.0.1:43210/checkout/alternative-payments/{'0123456789abcdef' * 6}{n}" for n in range(2)]
    first = a_payment(reference="click-1", phase="open", facts={"url": pages[0]})
    second = a_payment(reference="click-2", phase="processing", facts={"payment_link": pages[1]})
    others = [a_payment(phase="paid", facts={"url": "http://paid"}), a_payment(phase="open", facts={})]
    console, announced = Console(width=80, file=StringIO()), set()

    for _ in range(3):
        print_checkout_urls(console, [first, second, *others], announced)

    assert console.file.getvalue().splitlines() == [
        "click-1, pay here:",
        pages[0],
        "click-2, pay here:",
        pages[1],
    ]
