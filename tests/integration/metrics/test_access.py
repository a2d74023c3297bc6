"""Who is answered: loopback and named networks, never what a proxy passes on; a token over HTTPS."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from receipted.settings.secrets import Secret
from tests.support.serving import Served, serving, settings

TOKEN = "a-token-for-prometheus-0001"
LOOPBACK, PROXY = "127.0.0.1", "127.0.0.2"


def _served(folder: Path, **metrics: object) -> Iterator[Served]:
    config = settings(folder, development=False, trusted_proxies=[f"{PROXY}/32"])
    changed = config.metrics.model_copy(update=metrics)
    with serving(config.model_copy(update={"metrics": changed})) as served:
        yield served


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests of the module, which leave nothing behind."""
    yield from _served(tmp_path_factory.mktemp("production"))


@pytest.fixture(scope="module")
def with_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests of the module, which leave nothing behind."""
    yield from _served(tmp_path_factory.mktemp("with_token"), token=Secret(TOKEN, reference="env:METRICS"))


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize(
    "forwarded",
    [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "for=203.0.113.9"),
        ("X-Real-IP", "203.0.113.9"),
        ("Via", "1.1 proxy"),
    ],
)
@pytest.mark.parametrize("source", [LOOPBACK, PROXY])
def test_what_a_proxy_passes_on_is_refused(production: Served, path: str, forwarded: tuple[str, str], source: str):
    """Whether or not the proxy is known here, and whatever it says of its client."""
    answer = production.request("GET", path, headers=[forwarded], source=source)

    assert answer.status == 403
    assert answer.error["code"] == "not_inside"


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("source", [LOOPBACK, PROXY])
def test_loopback_and_a_proxy_itself_are_answered(production: Served, path: str, source: str):
    assert production.request("GET", path, source=source).status == 200
    assert production.request("HEAD", path, source=source).body == b""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([("Authorization", f"Bearer {TOKEN}x")], 401),
        ([("Authorization", f"Basic {TOKEN}")], 401),
        ([("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")], 401),
        ([("Authorization", f"Bearer {TOKEN}")], 200),
        ([("Authorization", f"Bearer {TOKEN}"), ("X-Forwarded-For", "203.0.113.9")], 403),
    ],
)
def test_a_token_is_asked_of_everybody(with_token: Served, headers, status: int):
    """The last one came over plain HTTP from outside, where the token could have been read."""
    answer = with_token.request("GET", "/metrics", headers=headers)

    assert answer.status == status
    assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)
    assert TOKEN.encode() not in answer.body


def test_a_token_opens_over_https(with_token: Served):
    outside = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https")]

    assert with_token.request("GET", "/metrics", headers=outside, source=PROXY).status == 401
    right = [*outside, ("Authorization", f"Bearer {TOKEN}")]
    assert with_token.request("GET", "/metrics", headers=right, source=PROXY).status == 200
    assert with_token.request("GET", "/readyz", headers=right, source=PROXY).status == 403
    assert with_token.request("GET", "/readyz").status == 200


def test_nothing_is_answered_where_it_is_switched_off(tmp_path: Path):
    for served in _served(tmp_path, enabled=False):
        assert [served.request("GET", path).status for path in ("/metrics", "/healthz", "/readyz")] == [404] * 3


def test_no_secret_is_told(with_token: Served):
    """Neither in metrics nor in what is ready."""
    right = [("Authorization", f"Bearer {TOKEN}")]
    told = b"".join(with_token.request("GET", path, headers=right).body for path in ("/metrics", "/readyz", "/healthz"))

    for secret in with_token.service.settings.secret_values():
        assert secret.encode() not in told
