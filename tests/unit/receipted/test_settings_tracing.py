"""What is refused of the settings of traces, without a word of a secret."""

import pytest

from receipted.errors import ConfigurationError
from receipted.settings.load import parse


def faults(**tracing: object) -> list[str]:
    environ = {"GOOD": "api-key=one%20two, other=x%2Cy", "BAD": "a-secret-alone", "LINE": "a-secret=x%0D%0Aother: y"}
    try:
        parse({"tracing": tracing}, environ=environ)
    except ConfigurationError as fault:
        return [str(found) for found in fault.faults if found.setting.startswith("tracing")]
    return []


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://collector.example/v1/traces",
        "https://someone:word@collector.example/v1/traces",
        "https://collector.example/v1/traces?key=word",
        "https://collector.example:port/",
        "https://[::1/",
        "ftp://collector.example/",
        "",
    ],
)
def test_a_place_that_is_not_safe_is_refused(endpoint: str) -> None:
    (fault,) = faults(endpoint=endpoint)
    assert fault.startswith("tracing.endpoint is no URL that traces may be sent to; ")
    assert "word" not in fault


@pytest.mark.parametrize("endpoint", ["https://collector.example/v1/traces", "http://127.0.0.1:4318/v1/traces"])
def test_https_and_loopback_are_taken(endpoint: str) -> None:
    assert faults(endpoint=endpoint, headers="env:GOOD") == []


@pytest.mark.parametrize("name", ["BAD", "LINE"])
def test_headers_that_are_none_are_refused_unrepeated(name: str) -> None:
    (fault,) = faults(endpoint="https://collector.example/", headers=f"env:{name}")
    assert fault.startswith(f"tracing.headers (env:{name}) holds no headers; ")
    assert "a-secret" not in fault


@pytest.mark.parametrize("share", [-0.1, 1.1, "most"])
def test_a_share_is_from_0_to_1(share: object) -> None:
    assert len(faults(share=share)) == 1
