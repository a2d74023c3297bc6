"""One deployment as people use it: the sandbox, a shop, and Receipted's processes with settings that know both."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import update

from receipted.settings import load as reading
from receipted.wiring import Service
from sandbox import signing
from storage import operator_actions, outbox, payments
from storage.columns import table_of
from storage.ids import new_id
from storage.tables import OperatorAction, OutboxMessage, Payment
from storage.tables_support import ConsolePerson, ConsoleSession
from tests.e2e.processes import SHOP_KEY, Process, Shop, free_port, from_procfile, receipted
from tests.support.console import Served
from tests.support.waiting import until

PAYEE = {"name": "The Shop", "account_number": "12345678", "sort_code": "010203"}
SHOPPER = {"merchant_user_id": "shopper-1", "merchant_user_ip": "192.0.2.7"}

#: account -> currency and the provider's own fields
ORDERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "alternative": ("USD", {}),
    "stable": ("USD", {}),
    "payfield": ("BDT", SHOPPER),
    "payfield-old": ("INR", SHOPPER),
    "banked": ("GBP", {"payee": PAYEE}),
}

_WAIT = 60


def started_sandbox(process: Process) -> dict[str, Any]:
    """What a sandbox that was just started says of itself."""
    process.says('"checkout"')
    process.wait_for(lambda: process.lines[-1] == "}", "the sandbox has told everything")
    told: dict[str, Any] = json.loads("\n".join(process.lines))
    return told


def write_settings(folder: Path, sandbox: Mapping[str, Any], shop_url: str, *, more: str = "") -> Path:
    """A settings file with an account at each provider of the sandbox."""
    port = free_port()
    lines = [
        "[service]",
        f'database = "sqlite:///{folder}/receipted.db"',
        f'public_url = "http://127.0.0.1:{port}"',
        f"listen_port = {port}",
        "development = true",
        '[[service.token_keys]]\nid = "e2e"\nsecret = "plain:a-key-of-the-e2e-tests"',
        more,
        f'[[sinks]]\nname = "shop"\nurl = "{shop_url}"\nsecrets = ["plain:{SHOP_KEY}"]',
    ]
    for account in sandbox["accounts"]:
        name = account["name"]
        lines += [
            f'[accounts.{name}]\nprovider = "{account["provider"]}"\nenvironment = "{account["environment"]}"',
            f'base_url = "{account["base_url"]}"',
            f"[accounts.{name}.secrets]",
            *(f'{secret} = "plain:{value}"' for secret, value in account["secrets"].items()),
            f"[accounts.{name}.options]",
            *(f"{option} = {json.dumps(value)}" for option, value in account["options"].items()),
            f'[[accounts.{name}.webhook_keys]]\nid = "e2e"\nsecret = "plain:{account["webhook_key"]}"',
        ]
    file = folder / "receipted.toml"
    file.write_text("\n".join(lines))
    return file


def public_url(settings: Path) -> str:
    """Under which the web process of these settings is reached."""
    found = re.search(r'public_url = "(.*)"', settings.read_text())
    assert found
    return found[1]


def register(settings: Path, sandbox: Mapping[str, Any]) -> None:
    """Make our URLs known as each provider wants it: by its call, in its dashboard, or with each payment."""
    receipted(settings, "webhooks register alternative")
    receipted(settings, "webhooks register banked")
    dashboard = {"provider": "stable_genius", "url": f"{public_url(settings)}/webhooks/stable"}
    httpx2.put(f"{sandbox['url']}/_control/webhook", json=dashboard).raise_for_status()


@dataclass
class Deployment:
    """What runs, with what a test may do to it from outside and see of it inside."""

    settings: Path
    sandbox: Mapping[str, Any]
    shop: Shop
    console: Served  #: the console of the running web process, and people who are logged in
    api: httpx2.Client

    @property
    def url(self) -> str:
        """Of the web process."""
        return self.console.base_url

    def order(self, account: str, minor: int = 1_250) -> Payment:
        """A payment that the merchant has just created by the API, with a reference that nobody else has."""
        currency, extra = ORDERS[account]
        wish = {
            "account": account,
            "amount_minor": minor,
            "currency": currency,
            "reference": f"order{new_id()[-8:]}",
            "extra": extra,
        }
        answer = self.api.post("/v1/payments", json=wish, headers={"idempotency-key": new_id()})
        assert answer.status_code in (200, 201), answer.text
        return self.payment(answer.json()["id"])

    def payment(self, payment_id: str) -> Payment:
        """As it is now."""
        with self.console.service.database.read() as unit:
            return payments.get(unit, payment_id)

    def owed(self, payment_id: str) -> Sequence[OutboxMessage]:
        """What is or was owed because of a payment."""
        with self.console.service.database.read() as unit:
            return outbox.of_payment(unit, payment_id)

    def actions(self, subject: str) -> list[OperatorAction]:
        """What people did about a payment or an effect."""
        with self.console.service.database.read() as unit:
            return list(operator_actions.of_subjects(unit, [subject]))

    def checkout(self, payment: Payment) -> str:
        """The sandbox's page at which the payer pays; found as a payer would, among those that are open."""
        with httpx2.Client(base_url=self.sandbox["url"]) as browser:
            pages = re.findall(r'href="(/checkout/[^"]+)"', browser.get("/checkout").text)
            page = next(page for page in pages if str(payment.reference) in browser.get(page).text)
        return f"{self.sandbox['url']}{page}"

    def act(self, payment: Payment, action: str, *, until_phase: str) -> Payment:
        """The payer acts at the checkout; the payment as soon as Receipted knows."""
        answer = httpx2.post(self.checkout(payment), data={"action": action})
        assert answer.status_code == 303, answer.text
        return self.reaches(payment, lambda known: known.phase == until_phase, until_phase)

    def reaches(self, payment: Payment, holds: Any, what: str) -> Payment:
        """The payment as soon as that holds of it."""
        until(lambda: holds(self.payment(payment.id)), _WAIT, lambda: f"{self.payment(payment.id)} is {what}")
        return self.payment(payment.id)

    def in_conflict(self) -> Payment:
        """A payment that was cancelled, and of which a signed webhook says then that it was confirmed."""
        payment = self.act(self.order("stable"), "cancel", until_phase="cancelled")
        amount = (payment.amount_minor or 0) / 100
        said = {"id": payment.provider_ref, "status": "confirmed", "amount": amount, "currency": "usd"}
        body = json.dumps({"id": f"evt_{new_id()}", "type": "payment_intent.confirmed", "data": said}).encode()
        self.push("stable", body).raise_for_status()
        return self.reaches(payment, lambda known: known.review == "conflict", "in conflict")

    def push(self, account: str, body: bytes, *, key: str | None = None) -> httpx2.Response:
        """A webhook in Stable Genius's way, signed with the account's key or with another."""
        (its,) = (each for each in self.sandbox["accounts"] if each["name"] == account)
        headers = signing.stable_genius(key or its["webhook_key"])(body, datetime.now(UTC))
        headers |= {"content-type": "application/json"}
        return httpx2.post(f"{self.url}/webhooks/{account}", content=body, headers=headers)

    def idle(self, person: ConsolePerson, since: timedelta) -> None:
        """The person has not used any session for so long: the processes' clock cannot be turned, their past can."""
        sessions = table_of(ConsoleSession)
        seen = self.console.service.clock() - since
        with self.console.service.database.write() as unit:
            unit.execute(update(sessions).where(sessions.c.person_id == person.id).values(last_seen_at=seen))

    def dead_letter(self) -> OutboxMessage:
        """What is owed for a payment that was paid while the shop was closed; the shop stays closed."""
        self.shop.is_closed = True
        payment = self.act(self.order("stable"), "pay", until_phase="paid")
        until(
            lambda: [owed.status for owed in self.owed(payment.id)] == ["dead"],
            _WAIT,
            lambda: f"{self.owed(payment.id)} is dead",
        )
        (owed,) = self.owed(payment.id)
        return owed

    def reason(self) -> str:
        """Words that nobody else has written."""
        return f"seen on the statement, line {new_id()[-6:]}"


@contextmanager
def deployed(folder: Path, *, more: str = "") -> Iterator[Deployment]:
    """The processes of the Procfile, released and running against a sandbox of their own."""
    with ExitStack() as ending:

        def start(command: str, settings: Path | None = None) -> Process:
            process = Process(command, settings)
            ending.callback(process.discard)
            return process

        shop = Shop()
        ending.callback(shop.close)
        sandbox = started_sandbox(start("receipted sandbox --port 0 --json"))
        settings = write_settings(folder, sandbox, shop.url, more=more)
        assert start(from_procfile("release"), settings).ends() == 0
        web, worker = start(from_procfile("web"), settings), start(from_procfile("worker"), settings)
        web.says("listens at")
        worker.says("worker works")
        register(settings, sandbox)
        key = receipted(settings, "keys add e2e --test --scope read --scope write --by e2e")["key"]
        service = Service(reading.load(settings))
        ending.callback(service.close)
        console = Served(public_url(settings), service)
        api = ending.enter_context(
            httpx2.Client(base_url=console.base_url, headers={"authorization": f"Bearer {key}"}, timeout=_WAIT)
        )
        yield Deployment(settings, sandbox, shop, console, api)
        for client in console.clients:
            client.close()
        assert [line for line in web.errors if '"request.failed"' in line] == [], "no request found a bug"
