"""Rendering of pages: templates with the context that all pages share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from console.access import Person
from console.deps import ConsoleDeps
from console.formatting import TEMPLATE_FILTERS
from console.sessions import Cookies
from console.signing import FLASH_LIFETIME
from console.static_files import StaticFiles
from service.permissions import Permission

_TEMPLATES: Final = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class NavigationEntry:
    """One entry of the navigation."""

    name: str
    label: str
    path: str
    needs: Permission = Permission.READ


#: In the order in which an operator looks.
NAVIGATION: Final = (
    NavigationEntry("overview", "Overview", "/console/"),
    NavigationEntry("payments", "Payments", "/console/tables/payments/list"),
    NavigationEntry("inbox", "Inbox", "/console/tables/inbox/list"),
    NavigationEntry("outbox", "Outbox", "/console/tables/outbox/list"),
    NavigationEntry("quarantine", "Quarantine", "/console/tables/quarantine/list"),
    NavigationEntry("accounts", "Accounts", "/console/accounts"),
    NavigationEntry("reconciliations", "Reconciliations", "/console/tables/reconciliations/list"),
    NavigationEntry("actions", "Actions", "/console/tables/actions/list"),
    NavigationEntry("audit", "Audit", "/console/tables/audit/list"),
    NavigationEntry("people", "People", "/console/people", Permission.ADMIN),
)


class PageRenderer:
    """Renders templates: everything is escaped, and an undefined name is an error."""

    def __init__(self, deps: ConsoleDeps) -> None:
        self._deps = deps
        self.cookies = Cookies(deps)
        self.static = StaticFiles()
        self.is_served: Callable[[str], bool] = lambda _path: True  #: whether there is a page at the path
        self.environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters.update(TEMPLATE_FILTERS)
        self.environment.globals["static"] = self.static.url
        kinds = {account.environment for account in deps.accounts.values()}
        self._where = "live" if kinds == {"live"} else "test" if kinds <= {"test"} else "live and test"

    async def show(self, request: Request, template: str, *, status_code: int = 200, **context: Any) -> Response:
        """Render a template in a thread, with the last action's words, shown once."""
        given = {**self.context(request), **context}
        text = await self._deps.in_thread(lambda: self.environment.get_template(template).render(given))
        response = HTMLResponse(text, status_code)  # written in a thread: a long page must not hold up the way in
        if given["flash"] is not None:
            self.cookies.drop(response, self.cookies.flash)
        return response

    def context(self, request: Request) -> dict[str, Any]:
        """Return the context of every page.

        It has person, csrf, here, now, navigation, where, flash, request_id, path and environments.
        """
        person: Person | None = request.state.person
        flash, now = request.cookies.get(self.cookies.flash), self._deps.clock()
        shown = [
            entry
            for entry in NAVIGATION
            if person is not None and not person.is_held_up and person.may(entry.needs) and self.is_served(entry.path)
        ]
        return {
            "person": person,
            "csrf": self._deps.signing.form(request.state.secret) if request.state.secret else "",
            "here": _here(request.url.path),
            "now": now,
            "navigation": shown,
            "where": self._where,
            "flash": self._deps.signing.flashed(flash, now) if flash else None,
            "request_id": request.state.request_id,
            "path": request.url.path,
            "environments": {name: account.environment for name, account in self._deps.accounts.items()},
        }

    def go(self, to: str, words: str | None = None, tone: str = "ok") -> Response:
        """Redirect by 303 to a page that shows the words. `tone` is ok, warn or bad."""
        response = RedirectResponse(to, 303)
        if words is not None:
            kept = self._deps.signing.flash(tone, words[:1500], self._deps.clock())
            self.cookies.put(response, self.cookies.flash, kept, seconds=int(FLASH_LIFETIME.total_seconds()))
        return response


def _here(path: str) -> str:
    """Return the name of the navigation's entry for a path."""
    if path.startswith("/console/payments/"):
        return "payments"
    fits = [entry for entry in NAVIGATION if path.startswith(entry.path.removesuffix("list"))]
    best = max(fits, key=lambda entry: len(entry.path), default=None)
    if best is None or (best.name == "overview" and path != best.path):
        return ""
    return best.name
