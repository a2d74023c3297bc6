"""What most would write first: an endpoint that verifies, opens a session, adds a row and commits, for each request.

It keeps what the real application keeps of a delivery (body, headers, digest, key, times) under a unique key, and
answers when that is committed. Sessions are synchronous and run in Starlette's threads, as SQLModel's own pages do.
"""

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, Column, LargeBinary, UniqueConstraint, create_engine, event
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, MetaData, Session, SQLModel
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from storage.ids import new_id
from tests.benchmarks import events


class _Kept(SQLModel):
    metadata: ClassVar[MetaData] = MetaData()


class NaiveDelivery(_Kept, table=True):
    """One delivery."""

    __tablename__ = "naive_delivery"
    __table_args__ = (UniqueConstraint("account", "delivery_key"),)

    id: str = Field(primary_key=True)
    account: str
    delivery_key: str
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    headers: list[list[str]] = Field(sa_column=Column(JSON, nullable=False))
    digest: str
    key_id: str
    status: str = Field(default="pending", index=True)
    received_at: datetime


def naive_app(url: str) -> Starlette:
    """The application, on a database that it makes its table in."""
    is_sqlite = url.startswith("sqlite")
    engine = create_engine(
        url if is_sqlite else url.replace("postgresql://", "postgresql+psycopg://"),
        connect_args={"timeout": 30} if is_sqlite else {},
        pool_size=20,
        max_overflow=20,
    )

    if is_sqlite:

        @event.listens_for(engine, "connect")
        def _durable(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")

    _Kept.metadata.create_all(engine)

    def keep(account: str, body: bytes, headers: list[list[str]]) -> str:
        told = json.loads(body)
        kept = NaiveDelivery(
            id=new_id(),
            account=account,
            delivery_key=told["id"],
            body=body,
            headers=headers,
            digest=hashlib.sha256(body).hexdigest(),
            key_id="k1",
            received_at=datetime.now(UTC),
        )
        kept_id = kept.id
        with Session(engine) as session:
            session.add(kept)
            try:
                session.commit()
            except IntegrityError:
                session.rollback()  # it was there already
        return kept_id

    async def receive(request: Request) -> JSONResponse:
        body = await request.body()
        stamp = request.headers["x-stablegenius-timestamp"]
        signed = hmac.new(events.KEY.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(f"sha256={signed}", request.headers["x-stablegenius-signature"]):
            return JSONResponse({"error": "signature"}, 401)
        headers = [list(pair) for pair in request.headers.items()]
        kept_id = await run_in_threadpool(keep, request.path_params["account"], body, headers)
        return JSONResponse({"received": True, "id": kept_id})

    return Starlette(routes=[Route("/webhooks/{account}", receive, methods=["POST"])])
