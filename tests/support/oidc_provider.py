"""A made-up OpenID Connect provider over real HTTP, which lets everybody in."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qs, urlencode, urlsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.support.answering import Answering, Call, Reply

CLIENT, CLIENT_SECRET = "receipted-console", "the-client-secret-0123456789"
KEY = RSAKey.generate_key(2048, {"kid": "k1"})


@dataclass
class Provider:
    """A provider that lets everybody in, and says of them what a test wants."""

    server: Answering
    clock: Callable[[], datetime]
    claims: dict = field(default_factory=dict)  #: besides the usual ones, or in their place
    metadata: dict = field(default_factory=dict)
    header: dict = field(default_factory=lambda: {"alg": "RS256", "kid": "k1"})
    key: object = field(default_factory=lambda: KEY)
    url: str = ""  #: by which it is known; else the server's
    asked: dict = field(default_factory=dict)  #: what the browser was sent with
    redeemed: list = field(default_factory=list)

    def answer(self, call: Call) -> Reply:
        url = self.url or self.server.url
        if call.path == "/.well-known/openid-configuration":
            known = {
                "issuer": url,
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/redeem",
                "jwks_uri": f"{url}/keys",
            }
            return Reply(200, json.dumps({**known, **self.metadata}).encode())
        if call.path == "/keys":
            return Reply(200, json.dumps({"keys": [KEY.as_dict(private=False)]}).encode())
        if call.path.startswith("/authorize?"):
            self.asked = {name: values[0] for name, values in parse_qs(urlsplit(call.path).query).items()}
            given = urlencode({"code": "a-code", "state": self.asked["state"]})
            return Reply(303, b"", {"location": f"{self.asked['redirect_uri']}?{given}"})
        if call.path != "/redeem":
            return Reply(404)
        given = {name: values[0] for name, values in parse_qs(call.body.decode()).items()}
        self.redeemed.append(given)
        if create_s256_code_challenge(given["code_verifier"]) != self.asked["code_challenge"]:
            return Reply(400, b'{"error": "invalid_grant"}')
        return Reply(200, json.dumps({"token_type": "Bearer", "access_token": "a", "id_token": self.token()}).encode())

    def token(self) -> str:
        now = int(self.clock().timestamp())
        usual = {
            "iss": self.url or self.server.url,
            "aud": CLIENT,
            "sub": "subject-1",
            "iat": now,
            "exp": now + 300,
            "nonce": self.asked["nonce"],
            "preferred_username": "Ada",
            "groups": ["staff", "payments-operators"],
        }
        claims = {name: value for name, value in {**usual, **self.claims}.items() if value is not None}
        return jwt.encode(self.header, claims, self.key, algorithms=[self.header["alg"]])
