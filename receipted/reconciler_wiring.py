"""Reconciliation built from the settings, for commands and the worker's schedule."""

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from poller.reconciler import Reconciler, ReconciliationSchedule
from poller.reconciliation import ReconciledAccount, ReconciliationTools
from providers.contract import Capability, Client, Provider
from receipted.wiring import Service


def reconciler(service: Service, clients: Mapping[str, Client]) -> Reconciler:
    """Build the reconciler, which applies its own messages as it goes.

    A command may run where no worker does; with one beside it each message is applied by the process that claims it
    first.
    """
    settings, worker = service.settings.reconciliation, service.inbox_worker()

    async def apply(message_ids: Sequence[str]) -> None:
        await asyncio.to_thread(worker.step, message_ids)

    accounts = {
        name: ReconciledAccount(
            clients[name],
            partial(_is_terminal, account.provider),
            account.provider.can(Capability.LIST),
            account.asked_kinds,
        )
        for name, account in service.accounts.items()
    }
    settle_timeout = timedelta(seconds=service.settings.poller.create_grace_seconds + 60)
    return Reconciler(
        ReconciliationTools(
            service.database,
            service.work_clock,
            apply,
            asyncio.sleep,
            concurrency=settings.concurrency,
            settle_timeout=settle_timeout,
        ),
        accounts,
        random.Random(),  # noqa: S311 - jitter, not a secret
        holder=f"process {os.getpid()} on {socket.gethostname()}",
        grace=timedelta(seconds=settings.grace_seconds),
    )


def scheduled_steps(service: Service, clients: Mapping[str, Client]) -> dict[str, Callable[[], Awaitable[int]]]:
    """Return a step for each account that reconciles it when due.

    None where the settings want no schedule.
    """
    settings = service.settings.reconciliation
    if not settings.every_seconds:
        return {}
    schedule = ReconciliationSchedule(
        service.database,
        reconciler(service, clients),
        service.work_clock,
        every=timedelta(seconds=settings.every_seconds),
        look_back=timedelta(seconds=settings.look_back_seconds),
    )
    return {name: partial(schedule.step, name) for name, account in service.accounts.items() if account.can_reconcile}


def _is_terminal(provider: Provider, kind: str, state: str | None) -> bool:
    return provider.lifecycles[kind].is_terminal(state)
