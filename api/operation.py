"""One operation of the API as data: what it takes, what it answers, who may call it, and what does it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.types import Receive

from api.errors import EnvironmentMismatch
from api.parts import Parts
from service.accounts import ConfiguredAccount
from service.permissions import KeyScope, Permission, granted, scope_for
from storage import payments
from storage.database import Unit
from storage.errors import NotFound
from storage.tables import Payment
from storage.tables_support import ApiKey

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Resource:
    """The resource that an id in a path names."""

    words: str
    missing: str  #: the code where there is none of that id


#: By the part of the path after /v1/.
RESOURCES: Final[Mapping[str, Resource]] = {
    "payments": Resource("payment", "payment_not_found"),
    "inbox": Resource("inbox message", "inbox_message_not_found"),
    "outbox": Resource("outbox message", "outbox_message_not_found"),
    "rejected": Resource("rejected delivery", "rejected_delivery_not_found"),
    "keys": Resource("API key", "api_key_not_found"),
}


class Repeats(Enum):
    """What an Idempotency-Key does for an operation."""

    NO = "no"  #: nothing; it is not looked at
    MAY = "may"  #: with one, a repeat is answered as the first call was
    MUST = "must"  #: it has to be given


@dataclass(frozen=True, slots=True)
class Plain:
    """An answer that is no JSON object of ours: bytes as they are, or a stream of them."""

    media_type: str
    body: bytes | None = None
    chunks: Any = None  #: an async iterator of bytes, where `body` is None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One request that was authenticated and is of the right form."""

    parts: Parts
    key: ApiKey
    request_id: str
    path: Mapping[str, str]
    query: Any
    body: Any
    headers: Headers
    receive: Receive

    @property
    def commands(self) -> Any:
        """What may be asked for."""
        return self.parts.commands()

    def may(self, permission: Permission) -> bool:
        """Return True where the key grants the permission."""
        return permission in granted(self.key.scopes)

    @property
    def actor(self) -> str:
        """Who is kept as having decided: the key, and whom it speaks for."""
        by = getattr(self.body, "by", None)
        return f"{by} (key {self.key.name})" if by else f"key {self.key.name}"

    @property
    def reached(self) -> list[str]:
        """The names of the accounts that the key reaches."""
        return [name for name, account in self.parts.accounts.items() if account.environment == self.key.environment]

    def account(self, name: str) -> ConfiguredAccount:
        """The account; raises NotFound, or EnvironmentMismatch where the key does not reach it."""
        account = self.parts.accounts.get(name)
        if account is None:
            raise NotFound(
                f"no account of this name; the key reaches: {', '.join(self.reached)}",
                param="account",
                code="unknown_account",
            )
        self.check(name)
        return account

    def check(self, account: str) -> None:
        """Return where the key reaches the account of a row; raises NotFound for one that is not configured."""
        known = self.parts.accounts.get(account)
        if known is None:
            raise NotFound("its account is not configured any more", param="account", code="unknown_account")
        if known.environment != self.key.environment:
            words = f"the key is of the environment {self.key.environment}, and the account of {known.environment}"
            raise EnvironmentMismatch(words)

    def accounts(self, wanted: str | None) -> list[str]:
        """The one account that is wanted, or all that the key reaches."""
        return self.reached if wanted is None else [self.account(wanted).name]

    async def read(self, do: Callable[[Unit], Result]) -> Result:
        """What is read in one snapshot, in a thread."""
        return await self.parts.in_thread(lambda: self._read(do))

    async def write(self, do: Callable[[Unit], Result]) -> Result:
        """What is done in one commit, in a thread."""
        return await self.parts.in_thread(lambda: self._write(do))

    async def payment(self) -> Payment:
        """The payment that the path names; raises NotFound or EnvironmentMismatch."""
        found = await self.read(lambda unit: payments.get(unit, self.path["id"]))
        self.check(found.account)
        return found

    def _read(self, do: Callable[[Unit], Result]) -> Result:
        with self.parts.database.read() as unit:
            return do(unit)

    def _write(self, do: Callable[[Unit], Result]) -> Result:
        with self.parts.database.write() as unit:
            return do(unit)


Does = Callable[[Call], Awaitable["BaseModel | Plain"]]


@dataclass(frozen=True, slots=True)
class Operation:
    """What the router, the description and the tests know of one operation."""

    method: str
    path: str  #: with {id} and {account} in it
    id: str
    tag: str
    needs: Permission
    does: Does
    answer: type[BaseModel] | None  #: None for an answer that is no JSON object of ours
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    repeats: Repeats = Repeats.NO
    calls_provider: bool = False
    status: int = 200
    media_types: tuple[str, ...] = ("application/json",)
    refusals: Mapping[int, str] = field(default_factory=dict)  #: of its own, by status

    @property
    def scope(self) -> KeyScope:
        """Scope that a key needs for it."""
        return scope_for(self.needs)

    @property
    def resource(self) -> Resource | None:
        """Return the resource that the path's id names."""
        return RESOURCES[self.path.split("/")[2]] if "{id}" in self.path else None

    @property
    def summary(self) -> str:
        """The first line of what the function says of itself."""
        return (self.does.__doc__ or "").strip().splitlines()[0]

    @property
    def description(self) -> str:
        """The rest of it."""
        lines = (self.does.__doc__ or "").strip().splitlines()[1:]
        return "\n".join(line.strip() for line in lines).strip()
