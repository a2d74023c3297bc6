"""Keeps rejected deliveries for a while, so that a wrong key never loses an event."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from storage import quarantine
from storage.database import Database
from storage.tables import RejectedDelivery


class Quarantine:
    """The bounded quarantine of this database."""

    def __init__(self, database: Database, *, per_account: int) -> None:
        self._database = database
        self._per_account = per_account

    async def keep(
        self,
        *,
        account: str,
        received_at: datetime,
        reason: str,
        client: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        kind: str | None,
        about: str | None,
    ) -> None:
        """The delivery is kept, and the account's oldest beyond its bound is not. Raises StorageUnavailable."""
        rejected = RejectedDelivery(
            id="",
            account=account,
            received_at=received_at,
            reason=reason,
            client=client[:64],
            headers=[list(pair) for pair in headers],
            body=body,
            kind=kind,
            about=about,
        )
        await asyncio.to_thread(self._keep, rejected)

    def _keep(self, rejected: RejectedDelivery) -> None:
        with self._database.write() as unit:
            quarantine.keep(unit, rejected, at_most=self._per_account)
