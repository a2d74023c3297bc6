"""OpenID Connect: the authorization code flow with PKCE, and the ID token's proof."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import get_well_known_url
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from console.errors import OidcFailed, OidcRefused
from providers.errors import InsecureUrl
from providers.http import require_https
from service.permissions import Role

#: Signatures with a key that the provider publishes; `none` and shared secrets are not among them.
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_TIMEOUT_S: Final = 10.0
_LEEWAY_S: Final = 60
_METADATA_LIFETIME: Final = timedelta(minutes=10)
_MAX_BODY_BYTES: Final = 256 * 1024
_SCOPE: Final = "openid profile email"


class OidcAttempt(NamedTuple):
    """A log-in under way at the provider, kept in a signed cookie."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def begin(cls) -> "OidcAttempt":
        """Make one with new secrets."""
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))


class OidcIdentity(NamedTuple):
    """A person, as the provider says."""

    subject: str
    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class OidcOptions:
    """Settings of the provider, and which values of a claim give which role."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    name_claim: str
    role_claim: str
    roles: Mapping[Role, frozenset[str]]
    is_development: bool = False  #: plain HTTP to this machine is let be


class OidcClient:
    """Client of one provider; its metadata is kept for ten minutes."""

    def __init__(self, options: OidcOptions, clock: Callable[[], datetime]) -> None:
        self._options = options
        self._clock = clock
        self._metadata: tuple[datetime, Mapping[str, Any]] | None = None

    @property
    def issuer(self) -> str:
        """Return the provider's name for itself."""
        return self._options.issuer

    async def authorization_url(self, attempt: OidcAttempt) -> str:
        """Return the URL to send the browser to; raises OidcFailed."""
        async with self._http() as http:
            metadata = await self._discover(http)
        return str(
            prepare_grant_uri(
                metadata["authorization_endpoint"],
                self._options.client_id,
                "code",
                self._options.redirect_uri,
                _SCOPE,
                attempt.state,
                nonce=attempt.nonce,
                code_challenge=create_s256_code_challenge(attempt.verifier),
                code_challenge_method="S256",
            )
        )

    async def identify(self, attempt: OidcAttempt, code: str, issuer: str | None) -> OidcIdentity:
        """Redeem the code and return who it is for; raises OidcFailed or OidcRefused.

        `issuer` is what the answer named, if it did (RFC 9207).
        """
        options = self._options
        if issuer is not None and issuer != options.issuer:
            raise OidcRefused("the answer is from another provider")
        async with self._http() as http:
            metadata = await self._discover(http)
            given = {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": options.redirect_uri,
                "code_verifier": attempt.verifier,
                "client_id": options.client_id,
                "client_secret": options.client_secret,
            }
            answer = await self._json(http, "POST", metadata["token_endpoint"], data=given)
            keys = await self._json(http, "GET", metadata["jwks_uri"])
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise OidcFailed("the provider gave no ID token")
        return self._identity(self._claims(token, keys, attempt.nonce))

    def _claims(self, token: str, keys: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """Verify signature, issuer, audience, times and nonce; raises OidcRefused."""
        options = self._options
        expected = {"iss": options.issuer, "aud": options.client_id}
        try:
            decoded = jwt.decode(token, KeySet.import_key_set(dict(keys)), algorithms=list(_ALGORITHMS))  # type: ignore[arg-type] # a key set is checked by the library
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {name: {"essential": True, "value": value} for name, value in expected.items()},
                {"nonce": nonce, "client_id": options.client_id},
            )
            claims.validate(int(self._clock().timestamp()), _LEEWAY_S)
        except (JoseError, AuthlibBaseError, ValueError, TypeError, KeyError):
            raise OidcRefused("the provider's ID token is not valid here") from None
        return dict(claims)

    def _identity(self, claims: Mapping[str, Any]) -> OidcIdentity:
        options = self._options
        subject, name = claims.get("sub"), claims.get(options.name_claim)
        if not isinstance(subject, str) or not subject:
            raise OidcRefused("the provider names nobody")
        if not isinstance(name, str) or not name:
            raise OidcRefused(f"the provider's ID token has no {options.name_claim}")
        given = claims.get(options.role_claim)
        listed = given if isinstance(given, list) else [given]
        held = {each for each in listed if isinstance(each, str)}
        for role in (Role.ADMIN, Role.OPERATOR, Role.VIEWER):
            if held & options.roles.get(role, frozenset()):
                return OidcIdentity(subject, name, role)
        raise OidcRefused(f"nothing in your {options.role_claim} gives a role here; ask an admin of this console")

    async def _discover(self, http: httpx2.AsyncClient) -> Mapping[str, Any]:
        now = self._clock()
        if self._metadata is not None and now - self._metadata[0] < _METADATA_LIFETIME:
            return self._metadata[1]
        found = await self._json(http, "GET", get_well_known_url(self._options.issuer, external=True))
        if found.get("issuer") != self._options.issuer:
            raise OidcFailed("the provider calls itself by another issuer than oidc.issuer")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            self._require_secure(found.get(name))
        self._metadata = (now, found)
        return found

    def _require_secure(self, url: Any) -> None:
        try:
            require_https(str(url), allow_loopback=self._options.is_development)
        except (InsecureUrl, ValueError):
            raise OidcFailed("the provider's metadata names an endpoint without HTTPS") from None

    async def _json(self, http: httpx2.AsyncClient, method: str, url: str, **options: Any) -> Mapping[str, Any]:
        """Return a JSON object; raises OidcFailed, whose words hold nothing of the answer."""
        self._require_secure(url)
        try:
            async with http.stream(method, url, headers={"accept": "application/json"}, **options) as answer:
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > _MAX_BODY_BYTES:
                        raise OidcFailed("the provider's answer is too long")
                if answer.status_code != 200:
                    raise OidcFailed(f"the provider answered {answer.status_code}")
            found = httpx2.Response(200, content=body).json()
        except (httpx2.HTTPError, ValueError):
            raise OidcFailed("the provider gave no answer that can be read") from None
        if not isinstance(found, dict):
            raise OidcFailed("the provider's answer is no object")
        return found

    def _http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False)
