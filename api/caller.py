"""Caller of one request: its API key, permissions, accounts and storage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import Path, Request, Security

from api.deps import ApiDeps
from api.errors import EnvironmentMismatch
from service.accounts import ConfiguredAccount
from service.commands import Commands
from service.permissions import Permission, granted
from storage import payments
from storage.database import Unit
from storage.errors import NotFound
from storage.tables import Payment
from storage.tables_support import ApiKey

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """An authenticated caller within its rate limit."""

    deps: ApiDeps
    key: ApiKey
    request_id: str

    @property
    def commands(self) -> Commands:
        """Commands of the running application; raises NotRunning."""
        return self.deps.commands()

    @property
    def account_names(self) -> list[str]:
        """Names of the accounts that are of the key's environment."""
        return [name for name, account in self.deps.accounts.items() if account.environment == self.key.environment]

    def has(self, permission: Permission) -> bool:
        """Return True where the key grants the permission."""
        return permission in granted(self.key.scopes)

    def actor(self, by: str | None = None) -> str:
        """Name the key, and the person that it speaks for, for the record."""
        return f"{by} (key {self.key.name})" if by else f"key {self.key.name}"

    def account(self, name: str) -> ConfiguredAccount:
        """Return the account.

        Raises NotFound, or EnvironmentMismatch where the key does not reach it.
        """
        account = self.deps.accounts.get(name)
        if account is None:
            raise NotFound(
                f"no account of this name; the key reaches: {', '.join(self.account_names)}",
                param="account",
                code="unknown_account",
            )
        self.require_account(name)
        return account

    def require_account(self, name: str) -> None:
        """Check that the key reaches the account of a row.

        Raises EnvironmentMismatch, or NotFound for an account that is not configured.
        """
        account = self.deps.accounts.get(name)
        if account is None:
            raise NotFound("its account is not configured any more", param="account", code="unknown_account")
        if account.environment != self.key.environment:
            raise EnvironmentMismatch(
                f"the key is of the environment {self.key.environment}, and the account of {account.environment}"
            )

    def accounts(self, name: str | None) -> list[str]:
        """Return the one account that is asked for, or all that the key reaches."""
        return self.account_names if name is None else [self.account(name).name]

    async def read(self, do: Callable[[Unit], Result]) -> Result:
        """Read in one snapshot, in a thread."""
        return await self.deps.in_thread(lambda: self._read(do))

    async def write(self, do: Callable[[Unit], Result]) -> Result:
        """Write in one commit, in a thread."""
        return await self.deps.in_thread(lambda: self._write(do))

    async def payment(self, payment_id: str) -> Payment:
        """Return a payment that the key reaches.

        Raises NotFound or EnvironmentMismatch.
        """
        found = await self.read(lambda unit: payments.get(unit, payment_id))
        self.require_account(found.account)
        return found

    def _read(self, do: Callable[[Unit], Result]) -> Result:
        with self.deps.database.read() as unit:
            return do(unit)

    def _write(self, do: Callable[[Unit], Result]) -> Result:
        with self.deps.database.write() as unit:
            return do(unit)


async def current_caller(request: Request) -> ApiCaller:
    """Return the caller that the route admitted before it read the request."""
    caller: ApiCaller = request.state.caller
    return caller


def _with(permission: Permission) -> Any:
    return Security(current_caller, scopes=[permission.value])


#: A caller whose key has the permission. Each operation takes one of these: the route reads its scope from there.
ReadCaller = Annotated[ApiCaller, _with(Permission.READ)]
WriteCaller = Annotated[ApiCaller, _with(Permission.WRITE)]
OperateCaller = Annotated[ApiCaller, _with(Permission.OPERATE)]
BodiesCaller = Annotated[ApiCaller, _with(Permission.BODIES)]
ExportCaller = Annotated[ApiCaller, _with(Permission.EXPORT)]
AdminCaller = Annotated[ApiCaller, _with(Permission.ADMIN)]

_UUID: Final = {"format": "uuid"}

#: The id in a path, which the route has checked and put in lower case.
PathId = Annotated[str, Path(alias="id", description="the id", json_schema_extra=_UUID)]
PathAccount = Annotated[str, Path(alias="account", description="the account's name in the settings", min_length=1)]
