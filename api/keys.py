"""API keys: listed, made, rotated and revoked by a key with the scope admin."""

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import Field

from api.caller import AdminCaller, ApiCaller, PathId
from api.credentials import Environment, new_key, rotated_key
from api.errors import EnvironmentMismatch
from api.responses import missing
from api.routing import api_router
from api.schemas import RecordId, Shape
from api.validation import INTEGRAL, JsonInput, Name
from service.permissions import KeyScope
from storage import api_keys, operator_actions
from storage.database import Unit
from storage.tables_support import ApiKey

router = api_router("API keys")

_NO_KEY: Final = missing("no such API key")


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


class AddKeyBody(JsonInput):
    """A key to make, of the environment of the key that asks."""

    name: Name = Field(description="who will call with it")
    scopes: list[Annotated[KeyScope, Field(strict=False)]] = Field(
        min_length=1, max_length=8, description="what it may do; none implies another"
    )
    expires_in_days: Annotated[int, Field(ge=1, le=3650), INTEGRAL] | None = Field(
        None, description="when it ends by itself"
    )


class RotateBody(JsonInput):
    """Overlap of the old key and the new one."""

    overlap_seconds: Annotated[int, Field(ge=0, le=2_592_000), INTEGRAL] = Field(
        86_400, description="seconds for which the old key stays good"
    )


@router.get("/keys", operation_id="list_keys")
async def list_keys(caller: AdminCaller) -> Keys:
    """List the API keys of this environment."""
    found = await caller.read(lambda unit: api_keys.find(unit, environments=[caller.key.environment]))
    return Keys(data=[_answer(key) for key in found])


@router.post("/keys", operation_id="add_key")
async def add_key(caller: AdminCaller, body: AddKeyBody) -> NewKeyAnswer:
    """Make an API key; it is shown this once.

    An Idempotency-Key is not looked at, since the answer is not kept: where it was lost, revoke what was made.
    """
    now = caller.deps.clock()
    ends = now + timedelta(days=body.expires_in_days) if body.expires_in_days else None
    key, text = new_key(body.name, Environment(caller.key.environment), body.scopes, now, expires_at=ends)

    def write(unit: Unit) -> None:
        api_keys.add(unit, key)
        _record(unit, caller, "add key", key.id)

    await caller.write(write)
    return NewKeyAnswer(**_answer(key).model_dump(), key=text)


@router.post("/keys/{id}/rotate", operation_id="rotate_key", responses=_NO_KEY)
async def rotate_key(caller: AdminCaller, key_id: PathId, body: RotateBody) -> NewKeyAnswer:
    """Make a key that may do what this one may; it is shown this once.

    The old key stays good for a while.
    """
    now = caller.deps.clock()

    def write(unit: Unit) -> tuple[ApiKey, str]:
        old = _own(caller, api_keys.get(unit, key_id))
        key, text = rotated_key(old, now)
        api_keys.replace(unit, old.id, key, now + timedelta(seconds=body.overlap_seconds))
        _record(unit, caller, "rotate key", old.id)
        return key, text

    key, text = await caller.write(write)
    return NewKeyAnswer(**_answer(key).model_dump(), key=text)


@router.post("/keys/{id}/revoke", operation_id="revoke_key", responses=_NO_KEY)
async def revoke_key(caller: AdminCaller, key_id: PathId) -> KeyAnswer:
    """Revoke an API key: it opens nothing from now on.

    A repeat changes nothing.
    """

    def write(unit: Unit) -> ApiKey:
        _own(caller, api_keys.get(unit, key_id))
        _record(unit, caller, "revoke key", key_id)
        return api_keys.revoke(unit, key_id, caller.deps.clock())

    return _answer(await caller.write(write))


def _own(caller: ApiCaller, key: ApiKey) -> ApiKey:
    if key.environment != caller.key.environment:
        raise EnvironmentMismatch
    return key


def _record(unit: Unit, caller: ApiCaller, action: str, subject: str) -> None:
    operator_actions.note(
        unit,
        account=None,
        at=caller.deps.clock(),
        actor=caller.actor(),
        action=action,
        subject=subject,
        reason="by the API",
    )


def _answer(key: ApiKey) -> KeyAnswer:
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
