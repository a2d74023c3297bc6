"""Routes of the intake, with one error shape for every failure."""

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from receiver.intake import Intake
from receiver.returns import Returns
from statemachine.errors import ServiceError, type_for_status
from storage.ids import new_id

log = structlog.get_logger()


def routes(intake: Intake, returns: Returns) -> list[BaseRoute]:
    """Return every route of the intake."""
    return [
        Route("/webhooks/{account}", intake, methods=["POST", "GET", "HEAD"]),
        Route("/callbacks/{token}", intake, methods=["POST", "GET", "HEAD"]),
        Route("/return/{token}", returns.__call__, methods=["GET"]),
    ]


async def service_error(_request: Request, error: Exception) -> Response:
    """Answer a named failure in the error shape."""
    if not isinstance(error, ServiceError):
        raise error
    headers = {"retry-after": "5"} if error.status == 503 else None
    return JSONResponse(error.as_json(_noted(error)), error.status, headers=headers)


async def http_error(_request: Request, error: Exception) -> Response:
    """Answer 404, 405 and their like in the error shape."""
    if not isinstance(error, HTTPException):
        raise error
    named = ServiceError(error.detail, code=error.detail.lower().replace(" ", "_"))
    named.type, named.status = type_for_status(error.status_code), error.status_code
    return JSONResponse(named.as_json(_noted(named)), error.status_code, headers=error.headers)


async def unexpected_error(_request: Request, _error: Exception) -> Response:
    """Answer a bug in the error shape, without its words; the log has them."""
    error = ServiceError("an internal error; it is logged")
    return JSONResponse(error.as_json(_noted(error)), 500)


def _noted(error: ServiceError) -> str:
    """Log the error under a new request id, and return it for the caller to quote."""
    request_id = new_id()
    log.info("request.refused", request_id=request_id, code=error.code, status=error.status)
    return request_id
