"""Routes of the API: admission, strict reading, and documented refusals."""

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeGuard, get_type_hints

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends as Dependency
from fastapi.params import Query as QueryParam
from fastapi.params import Security
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from api.admission import Admission
from api.deps import ApiDeps
from api.errors import InvalidRequest
from api.idempotency import with_any_key, with_key
from api.responses import described
from api.validation import CheckedRequest, JsonInput, NoQuery, path_id
from service.permissions import KeyScope, Permission, scope_for
from storage.errors import NotFound

_ID_FORM: Final = "01a1fdca-6b5b-712f-b9f0-87ef6d7b7107"


@dataclass(frozen=True, slots=True)
class PathResource:
    """A kind of resource that an id in a path names."""

    words: str
    missing: str  #: the code where there is none of that id

    def not_found(self) -> NotFound:
        """Return the error for an id of the wrong form, as for one that is unknown."""
        message = f"there is no {self.words} of this id; an id has the form {_ID_FORM}"
        return NotFound(message, param="id", code=self.missing)


#: By the part of the path after /v1/.
RESOURCES: Final[Mapping[str, PathResource]] = {
    "payments": PathResource("payment", "payment_not_found"),
    "inbox": PathResource("inbox message", "inbox_message_not_found"),
    "outbox": PathResource("outbox message", "outbox_message_not_found"),
    "rejected": PathResource("rejected delivery", "rejected_delivery_not_found"),
    "reconciliations": PathResource("reconciliation", "reconciliation_not_found"),
    "keys": PathResource("API key", "api_key_not_found"),
}


async def takes_no_query(query: Annotated[NoQuery, Query()]) -> None:
    """Refuse every name of a query."""


class ApiRoute(APIRoute):
    """A route that admits its caller before anything of the request is read.

    FastAPI reads a body before it resolves dependencies; here the bytes of a caller that is not admitted are never
    read. The permission is the scope of the caller that the endpoint takes, such as ReadCaller; an endpoint without one
    does not start.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        hints = get_type_hints(endpoint, include_extras=True)
        marks = [(hint, mark) for hint in hints.values() for mark in getattr(hint, "__metadata__", ())]
        scopes = [scope for _, mark in marks if isinstance(mark, Security) for scope in mark.scopes or ()]
        keys = [mark.dependency for _, mark in marks if isinstance(mark, Dependency)]
        if len(scopes) != 1:
            raise TypeError(f"{endpoint.__name__} must take a caller with one permission, such as ReadCaller")
        self.permission = Permission(scopes[0])
        self.needs_key = with_key in keys
        self.may_have_key = self.needs_key or with_any_key in keys
        self.query_model = next((hint.__origin__ for hint, mark in marks if isinstance(mark, QueryParam)), None)
        self.body_model = next(filter(_is_body, hints.values()), None)
        self.resource = RESOURCES[path.split("/")[2]] if "{id}" in path else None
        (self.method,) = options["methods"]
        summary, _, description = inspect.cleandoc(endpoint.__doc__ or "").partition("\n")
        options["summary"] = summary
        options["description"] = "\n\n".join(filter(None, [description.strip(), f"Scope: `{self.scope.value}`."]))
        options["response_description"] = "Done."
        options["responses"] = described(
            options.get("responses") or {}, may_have_body=self.method != "GET", may_have_key=self.may_have_key
        )
        if self.query_model is None:
            options["dependencies"] = [Depends(takes_no_query), *(options.get("dependencies") or ())]
        super().__init__(path, endpoint, **options)

    @property
    def scope(self) -> KeyScope:
        """Scope that a key needs for it."""
        return scope_for(self.permission)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the whole path; `$` alone would pass over a line feed at its end."""
        if scope["path"].endswith("\n") and not self.path_format.endswith("}"):
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Admit the caller and read the request strictly; FastAPI does the rest."""
        handle = super().get_route_handler()

        async def serve(request: Request) -> Response:
            state = request.app.state
            deps: ApiDeps = state.deps
            admission: Admission = state.admission
            request.state.caller = await admission.admit(request, self.permission)
            if self.resource is not None:
                request.path_params["id"] = self._checked_id(request.path_params["id"])
            raw = b"" if self.method == "GET" else await deps.read_body(request.scope, request.receive)
            checked = CheckedRequest(request, raw, self.body_model)
            try:
                return await handle(checked)
            except RequestValidationError as wrong:
                raise InvalidRequest(checked.faults(wrong.errors(), self.query_model or NoQuery)) from None
            except NotFound as missing:
                if self.resource is None or missing.code != NotFound.code:
                    raise
                raise NotFound(missing.message, param="id", code=self.resource.missing) from missing

        return serve

    def _checked_id(self, given: str) -> str:
        whole = path_id(given)
        if whole is None and self.resource is not None:
            raise self.resource.not_found()
        return whole or given


def _is_body(hint: Any) -> TypeGuard[type[JsonInput]]:
    return inspect.isclass(hint) and issubclass(hint, JsonInput)


def api_router(tag: str) -> APIRouter:
    """Return a router for one noun of the API."""
    return APIRouter(prefix="/v1", tags=[tag], route_class=ApiRoute)


def refuse_get(router: APIRouter, path: str) -> None:
    """Refuse GET at a fixed path, which a template of the router would take for an id."""

    async def refuse(_request: Request) -> Response:
        raise HTTPException(405)

    router.add_route(f"{router.prefix}{path}", refuse, methods=["GET"], include_in_schema=False)
