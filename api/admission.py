"""Admission of a request before it is read: API key, rate limit, scope."""

from starlette.requests import Request

from api.caller import ApiCaller
from api.credentials import authenticated, presented
from api.deps import ApiDeps
from api.errors import ScopeMissing, TooManyRequests
from api.rate_limits import allowance
from service.permissions import Permission, granted, scope_for
from storage.tables_support import ApiKey
from storage.token_buckets import BucketRate, TakenToken, token_buckets


class Admission:
    """Admits callers.

    Nothing is cached: a key that was revoked opens nothing from then on.
    """

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._rate = BucketRate(deps.bounds.requests_per_second, deps.bounds.burst)
        self._rates = token_buckets(deps.database, self._rate)

    async def admit(self, request: Request, needed: Permission) -> ApiCaller:
        """Return the caller, and put the state of its rate limit in the answer's headers.

        Raises KeyMissing or KeyInvalid, then TooManyRequests, then ScopeMissing.
        """
        text = presented(request.headers)
        key, taken = await self._deps.in_thread(lambda: self._checked(text))
        allowed = allowance(self._rate, taken)
        request.state.headers.update(allowed.headers())
        if not allowed.is_granted:
            raise TooManyRequests
        if needed not in granted(key.scopes):
            raise ScopeMissing(f"the key needs the scope {scope_for(needed).value}")
        return ApiCaller(self._deps, key, request.state.request_id)

    def _checked(self, text: str) -> tuple[ApiKey, TakenToken]:
        key = authenticated(self._deps.database, text, self._deps.clock())
        return key, self._rates.take(key.id)
