"""Rehearsal of a start: build everything that the settings configure."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2

from receipted.errors import ConfigurationError, SettingFault
from receipted.settings.models import Settings, SinkSettings
from receipted.wiring import Service
from statemachine.errors import ServiceError

_DATABASE: Final = "service.database"

#: By the parameter that a refusal names: what to do about it.
_REMEDIES: Final = {
    "handler": "give an installed entry point's name, or module:function of a module on PYTHONPATH",
    "database": 'give a URL such as "sqlite:///var/receipted.db" or "postgresql://host/receipted"',
}


def rehearse(settings: Settings, *, delivers: bool = True) -> None:
    """Build everything that the process needs; raises ConfigurationError.

    The error names everything that cannot be built. `receipted config check` and every process call this, so that what
    one passes the other starts with. Connects to nothing: a database that is away, and a port that is in use, are met
    by the start alone. Sinks are left out where the process delivers to none.
    """
    faults = list(_database_file(settings.service.database))
    try:
        service = Service(settings)
    except ServiceError as error:
        raise ConfigurationError([*faults, _fault(_DATABASE, error)]) from None
    try:
        faults += asyncio.run(_built(service, delivers=delivers))
    finally:
        service.close()
    if faults:
        raise ConfigurationError(faults)


async def _built(service: Service, *, delivers: bool) -> list[SettingFault]:
    """Build clients and sinks, each by itself; return the faults."""
    faults: list[SettingFault] = []
    async with httpx2.AsyncClient() as http:
        for name, account in service.accounts.items():
            try:
                service.client(account, http)
            except (ServiceError, ValueError) as error:
                faults.append(_fault(f"accounts.{name}", error))
    for at, sink in enumerate(service.settings.sinks if delivers else ()):
        try:
            await service.sink(sink).aclose()
        except (ServiceError, ValueError) as error:
            faults.append(_fault(f"sinks.{at}{_part_of(sink, error)}", error))
    return faults


def _database_file(url: str) -> Iterator[SettingFault]:
    """Yield faults of a SQLite file's path, without making it."""
    scheme, found, rest = url.partition(":///")
    if not found or not scheme.startswith("sqlite"):
        return
    path = Path(rest.partition("?")[0])
    if path.is_dir():
        yield SettingFault(_DATABASE, f"names the folder {path}", "name a file in it, such as receipted.db")
    above = next((each for each in path.parents if each.exists()), Path())
    if not above.is_dir():
        yield SettingFault(_DATABASE, f"lies below {above}, which is no folder", "name a file in a folder")


def _part_of(sink: SinkSettings, error: Exception) -> str:
    param = getattr(error, "param", None)
    return f".{param}" if param in type(sink).model_fields else ""


def _fault(setting: str, error: Exception) -> SettingFault:
    message = error.message if isinstance(error, ServiceError) else f"{type(error).__name__}"
    remedy = _REMEDIES.get(getattr(error, "param", None) or "", "correct it, or remove it")
    return SettingFault(setting, f"cannot be used: {message}", remedy)
