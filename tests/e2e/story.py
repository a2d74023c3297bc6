"""A deployment in which everything has happened that a page of the console tells of."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

from playwright.sync_api import BrowserContext, Page

from storage.ids import new_id
from storage.tables_support import ConsolePerson
from tests.e2e.deployment import Deployment
from tests.e2e.processes import receipted
from tests.support.console import Browser

_TABLES = ("payments", "inbox", "outbox", "quarantine", "reconciliations", "actions", "audit")


@dataclass(frozen=True)
class Story:
    """What happened, who may look at it, and where it is told."""

    deployment: Deployment
    admin: ConsolePerson
    viewer: ConsolePerson
    new: ConsolePerson  #: with a password that somebody else gave them
    pages: Mapping[str, str]  #: name -> path

    def enter(self, context: BrowserContext, person: ConsolePerson) -> Page:
        """A page in which the person is logged in."""
        browser = self.deployment.console.client(person=person)
        cookie = {"name": "receipted", "value": browser.http.cookies["receipted"], "url": self.deployment.url}
        context.add_cookies([cookie])  # type: ignore[list-item]
        return context.new_page()


def told(running: Deployment) -> Story:
    """Payments paid, failed and in conflict, effects that are dead, a forged delivery, a reconciliation."""
    payments = {
        "open": running.order("stable"),
        "paid": running.act(running.order("banked", 1_234_567), "pay", until_phase="paid"),
        "failed": running.act(running.order("payfield"), "decline", until_phase="failed"),
        "conflict": running.in_conflict(),
    }
    running.order("alternative")
    running.act(running.order("payfield-old"), "pay", until_phase="paid")
    dead = running.dead_letter()
    running.shop.is_closed = False
    assert running.push("stable", b'{"forged": true}', key="not-the-key-of-this-account").status_code == 401
    receipted(running.settings, "reconcile stable --since 1d")
    console, name = running.console, new_id()[-6:]
    admin, viewer = console.person("admin", f"ada-{name}"), console.person("viewer", f"vera-{name}")
    new = console.person("operator", f"olga-{name}", is_temporary=True)
    known = {f"payment-{name}": f"/console/payments/{payment.id}" for name, payment in payments.items()}
    pages = {**_pages(console.client(person=admin), dead.id), **known}
    pages["proof"] = f"{known['payment-paid']}/proof"
    return Story(running, admin, viewer, new, pages)


def _pages(admin: Browser, dead: str) -> dict[str, str]:
    lists = {f"table-{name}": f"/console/tables/{name}/list" for name in _TABLES}
    return {
        "overview": "/console/",
        "money": _linked(admin, "/console/", "/console/money"),
        "accounts": "/console/accounts",
        "account": "/console/accounts/stable",
        "people": "/console/people",
        "me": "/console/me",
        **lists,
        "table-nothing": "/console/tables/payments/list?q=nobody-has-this",
        "effect": f"/console/tables/outbox/detail?pk={dead}",
        "message": _linked(admin, lists["table-inbox"], "/console/tables/inbox/detail"),
        "rejected": _linked(admin, lists["table-quarantine"], "/console/tables/quarantine/detail"),
        "reconciliation": _linked(admin, lists["table-reconciliations"], "/console/tables/reconciliations/detail"),
    }


def _linked(admin: Browser, path: str, prefix: str) -> str:
    """The first link of the page that begins so."""
    found = re.search(rf'href="({re.escape(prefix)}[^"]*)"', admin.get(path).text)
    assert found, f"{path} links to {prefix}"
    return html.unescape(found[1])
