"""API keys by the API itself: listed, made, rotated and revoked by a key with the scope admin."""

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import Field

from api.answers import RecordId, Shape
from api.errors import EnvironmentMismatch
from api.keys import Environment, made, rotated
from api.operation import Call, Operation
from api.reading import INTEGRAL, Input, Name
from service.permissions import KeyScope, Permission
from storage import api_keys, operator_actions
from storage.database import Unit
from storage.tables_support import ApiKey


class KeyAnswer(Shape):
    """An API key, without what opens anything."""

    object: Literal["api_key"] = "api_key"
    id: RecordId
    name: str
    environment: Literal["live", "test"]
    scopes: list[KeyScope]
    prefix: str = Field(description="the key's beginning, which tells keys apart")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: RecordId | None
    last_used_at: datetime | None = Field(description="to about a minute")


class NewKeyAnswer(KeyAnswer):
    """A new API key. It is shown this once."""

    key: str = Field(description="what to call with; it is kept nowhere here")


class Keys(Shape):
    """The API keys of this key's environment."""

    object: Literal["list"] = "list"
    data: list[KeyAnswer]
    has_more: Literal[False] = False


class AddKeyBody(Input):
    """A key to make, of the environment of the key that asks."""

    name: Name = Field(description="who will call with it")
    scopes: list[KeyScope] = Field(min_length=1, max_length=8, description="what it may do; none implies another")
    expires_in_days: Annotated[int, Field(ge=1, le=3650), INTEGRAL] | None = Field(
        None, description="when it ends by itself"
    )


class RotateBody(Input):
    """How long both keys are good."""

    overlap_seconds: Annotated[int, Field(ge=0, le=2_592_000), INTEGRAL] = Field(
        86_400, description="seconds for which the old key stays good"
    )


async def find(call: Call) -> Keys:
    """List the API keys of this environment."""
    found = await call.read(lambda unit: api_keys.find(unit, environments=[call.key.environment]))
    return Keys(data=[_told(key) for key in found])


async def add(call: Call) -> NewKeyAnswer:
    """Make an API key; it is shown this once.

    An Idempotency-Key is not looked at, since the answer is not kept: where it was lost, revoke what was made.
    """
    body: AddKeyBody = call.body
    now = call.parts.clock()
    ends = now + timedelta(days=body.expires_in_days) if body.expires_in_days else None
    key, text = made(body.name, Environment(call.key.environment), body.scopes, now, expires_at=ends)

    def write(unit: Unit) -> None:
        api_keys.add(unit, key)
        _note(unit, call, "add key", key.id)

    await call.write(write)
    return NewKeyAnswer(**_told(key).model_dump(), key=text)


async def rotate(call: Call) -> NewKeyAnswer:
    """Make a key that may do what this one may, which stays good for a while; the new one is shown this once."""
    body: RotateBody = call.body
    now = call.parts.clock()

    def write(unit: Unit) -> tuple[ApiKey, str]:
        old = _own(call, api_keys.get(unit, call.path["id"]))
        key, text = rotated(old, now)
        api_keys.replace(unit, old.id, key, now + timedelta(seconds=body.overlap_seconds))
        _note(unit, call, "rotate key", old.id)
        return key, text

    key, text = await call.write(write)
    return NewKeyAnswer(**_told(key).model_dump(), key=text)


async def revoke(call: Call) -> KeyAnswer:
    """Revoke an API key: it opens nothing from now on.

    A repeat changes nothing.
    """

    def write(unit: Unit) -> ApiKey:
        _own(call, api_keys.get(unit, call.path["id"]))
        _note(unit, call, "revoke key", call.path["id"])
        return api_keys.revoke(unit, call.path["id"], call.parts.clock())

    return _told(await call.write(write))


def _own(call: Call, key: ApiKey) -> ApiKey:
    if key.environment != call.key.environment:
        raise EnvironmentMismatch
    return key


def _note(unit: Unit, call: Call, action: str, subject: str) -> None:
    operator_actions.note(
        unit, account=None, at=call.parts.clock(), actor=call.actor, action=action, subject=subject, reason="by the API"
    )


def _told(key: ApiKey) -> KeyAnswer:
    return KeyAnswer(
        id=key.id,
        name=key.name,
        environment="live" if key.environment == "live" else "test",
        scopes=[KeyScope(scope) for scope in key.scopes],
        prefix=key.prefix,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        replaced_by=key.replaced_by,
        last_used_at=key.last_used_at,
    )


_UNKNOWN: Final = {404: "no such API key"}

OPERATIONS: Final = (
    Operation("GET", "/v1/keys", "list_keys", "API keys", Permission.ADMIN, find, Keys),
    Operation("POST", "/v1/keys", "add_key", "API keys", Permission.ADMIN, add, NewKeyAnswer, body=AddKeyBody),
    Operation(
        "POST",
        "/v1/keys/{id}/rotate",
        "rotate_key",
        "API keys",
        Permission.ADMIN,
        rotate,
        NewKeyAnswer,
        body=RotateBody,
        refusals=_UNKNOWN,
    ),
    Operation(
        "POST", "/v1/keys/{id}/revoke", "revoke_key", "API keys", Permission.ADMIN, revoke, KeyAnswer, refusals=_UNKNOWN
    ),
)
