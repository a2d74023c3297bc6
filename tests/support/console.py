"""The console behind a real server, with people who are logged in."""

import shutil
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from starlette.applications import Starlette
from starlette.routing import Route

from console.application import ConsoleRoute as Mounted
from console.deps import ConsoleLimits
from console.signing import ConsoleSigner, digest_of, new_secret
from receipted.settings import load
from receipted.settings.load import Settings
from receipted.web_wiring import WebServices, console_routes, signing_keys
from receipted.wiring import Service
from service import passwords
from service.passwords import ScryptCost, hash_password
from service.permissions import Role
from service.users import new_person
from storage import console_sessions, console_users
from storage.ids import new_id
from storage.tables_support import ConsolePerson, ConsoleSession
from tests.support.serving import listening
from tests.support.settings_file import LIVE_ACCOUNT, NOWHERE, write_settings
from tests.support.waiting import DEADLINE_S

#: What everybody's password is, kept at a cost that tests can bear.
PASSWORD = "correct horse battery staple"
CHEAP = ScryptCost(4, 8, 1)
_KEPT = hash_password(PASSWORD, CHEAP)


@contextmanager
def cheap_passwords() -> Iterator[None]:
    """Let every password be hashed at the cost that tests can bear; the cost that is written down stays the usual one.

    A usual hash takes a tenth of a second of processor time, and a test of the limits takes dozens.
    """

    def cheap(salt: bytes, _cost: ScryptCost) -> Scrypt:
        return Scrypt(salt=salt, length=32, n=2**CHEAP.log_n, r=CHEAP.r, p=CHEAP.p)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_scrypt", cheap)
        yield


@dataclass
class Served:
    """A running console with its service to look inside."""

    base_url: str
    service: Service
    routes: list[Route] = field(default_factory=list)  #: every page and form of the console
    clients: list[httpx2.Client] = field(default_factory=list)
    mounted: list[Any] = field(default_factory=list)  #: the console as the web application has it

    @property
    def limits(self) -> ConsoleLimits:
        """Those of the settings that nobody changed."""
        return ConsoleLimits()

    def person(
        self, role: Role | str = Role.OPERATOR, name: str | None = None, *, is_temporary: bool = False
    ) -> ConsolePerson:
        """Somebody new, with PASSWORD."""
        now = self.service.clock()
        name = name or f"{Role(role).value}-{new_id()[-6:]}"
        person = new_person(name, Role(role), _KEPT, now, is_temporary=is_temporary)
        with self.service.database.write() as unit:
            console_users.add(unit, person)
        return person

    def client(self, role: Role | str | None = Role.OPERATOR, *, person: ConsolePerson | None = None) -> "Browser":
        """A browser in which somebody of the role is logged in; nobody for None."""
        browser = Browser(self)
        self.clients.append(browser.http)
        if role is not None or person is not None:
            browser.person = person or self.person(role or Role.VIEWER)
            browser.secret = self._session(browser.person.id)
            cookie = ConsoleSigner(signing_keys(self.service)).session(browser.secret)
            browser.http.cookies.set("receipted", cookie, domain="127.0.0.1", path="/")
        return browser

    def _session(self, person_id: str) -> str:
        now, secret = self.service.clock(), new_secret()
        kept = ConsoleSession(
            id=new_id(),
            digest=digest_of(secret),
            person_id=person_id,
            created_at=now,
            last_seen_at=now,
            expires_at=now + self.limits.max_age,
            address="127.0.0.0/24",
            user_agent="tests",
        )
        with self.service.database.write() as unit:
            console_sessions.begin(unit, kept)
        return secret


class Browser:
    """Sends what a browser would: its cookies, and where a form came from."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.http = httpx2.Client(base_url=served.base_url, timeout=DEADLINE_S, follow_redirects=False)
        self.person: ConsolePerson | None = None
        self.secret: str | None = None

    @property
    def csrf(self) -> str:
        """The token of this session's forms."""
        assert self.secret is not None
        return ConsoleSigner(signing_keys(self.served.service)).form(self.secret)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        """One page."""
        return self.http.get(path, **options)

    def post(
        self, path: str, data: dict[str, str] | None = None, *, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx2.Response:
        """One form, with its token and origin unless `data` and `headers` say otherwise."""
        given = {"csrf": self.csrf} if self.secret is not None else {}
        sent = {"origin": self.served.base_url, "sec-fetch-site": "same-origin", **(headers or {})}
        return self.http.post(path, data={**given, **(data or {})}, headers=sent, **options)

    def follow(self, answer: httpx2.Response) -> httpx2.Response:
        """The page that a form's answer leads to."""
        assert answer.status_code == 303, answer.text
        return self.get(answer.headers["location"])


@contextmanager
def serving(found: Settings, *, clock: Any = None) -> Iterator[Served]:
    """The console of these settings, whose database is migrated."""
    service = Service(found)
    if clock is not None:
        service.clock = clock
    edge = WebServices(service)

    @asynccontextmanager
    async def lifespan(_app: Starlette):
        async with edge.running():
            yield

    routes = console_routes(service, edge)
    app = Starlette(routes=routes, lifespan=lifespan)
    app.router.redirect_slashes = False
    inner = [route for route in cast("Mounted", routes[0])._router.routes if isinstance(route, Route)]
    served = Served("", service, inner, mounted=list(routes))
    try:
        with listening(app) as port:
            served.base_url = f"http://127.0.0.1:{port}"
            try:
                yield served
            finally:
                for client in served.clients:
                    client.close()
    finally:
        service.close()


@contextmanager
def on_sqlite(
    folder: Path,
    template: Path,
    *,
    sandbox_url: str = NOWHERE,
    more: str = "",
    clock: Any = None,
    environ: dict[str, str] | None = None,
    is_development: bool = True,
) -> Iterator[Served]:
    """The console on a copy of the migrated file, with an account at each provider and a live one."""
    shutil.copyfile(template, folder / "receipted.db")
    found = load.load(write_settings(folder, sandbox_url, extra=LIVE_ACCOUNT + more), environ or {})
    if not is_development:  # which a file with plain: secrets and plain HTTP could not say itself
        service = found.service.model_copy(update={"development": False})
        found = found.model_copy(update={"service": service})
    with serving(found, clock=clock) as served:
        yield served
