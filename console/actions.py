"""Acting: what every form that does something has in common. Who, why, and what is said afterwards."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request
from starlette.responses import Response

from console.errors import InvalidForm
from console.guards import local
from console.page import Pages
from console.parts import Parts
from console.person import Person
from service.commands import Commands

#: As long as the commands take.
_LONGEST_REASON: Final = 2000


@dataclass(frozen=True, slots=True)
class Act:
    """One form that a person sent, who may do what it asks for."""

    parts: Parts
    request: Request
    person: Person
    form: ImmutableMultiDict[str, str]
    reason: str  #: empty where none was asked for and none given

    @property
    def commands(self) -> Commands:
        """What may be asked for."""
        return self.parts.commands()

    @property
    def by(self) -> str:
        """Who is kept as having decided."""
        return self.person.name

    def path(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    def field(self, name: str) -> str:
        """A field that must be filled in; raises InvalidForm."""
        value = self.form.get(name, "").strip()
        if not value:
            raise InvalidForm(f"{name} is missing", param=name)
        return value


@dataclass(frozen=True, slots=True)
class Done:
    """What is said afterwards, and where; `to` is otherwise the page that the form named as `back`."""

    words: str
    tone: str = "ok"  #: ok, warn or bad
    to: str | None = None


Does = Callable[[Act], Awaitable[Done]]
Endpoint = Callable[[Request], Awaitable[Response]]


def reason_of(form: ImmutableMultiDict[str, str], *, is_needed: bool) -> str:
    """The reason as it is kept; raises InvalidForm where it is missing or too long."""
    reason = form.get("reason", "").replace("\r\n", "\n").strip()
    if is_needed and not reason:
        raise InvalidForm("say why: the reason is kept with what is done", param="reason")
    if len(reason) > _LONGEST_REASON or "\0" in reason:
        raise InvalidForm(f"a reason has at most {_LONGEST_REASON} characters", param="reason")
    return reason


def acting(
    parts: Parts,
    pages: Pages,
    does: Does,
    *,
    needs_reason: bool = False,
    back: str = "/console/",
) -> Endpoint:
    """An endpoint for POST that does it, and goes back to the page by 303 with what is said.

    Session, origin, the form's token and the permission are checked before (console/application.py). A ServiceError
    becomes a page in words, with its status; what was recorded until then is recorded.
    """

    async def endpoint(request: Request) -> Response:
        person: Person = request.state.person
        form: ImmutableMultiDict[str, str] = request.state.form
        act = Act(parts, request, person, form, reason_of(form, is_needed=needs_reason))
        done = await does(act)
        return pages.go(done.to or local(form.get("back", back), back), done.words, done.tone)

    return endpoint
