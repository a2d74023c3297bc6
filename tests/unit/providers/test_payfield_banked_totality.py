"""What a provider answers is not ours to choose: naming its errors must never fail, nor leak."""

import json
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from providers.banked import errors as banked
from providers.catalogue import Payfield
from providers.contract import HttpAnswer
from providers.engine.errors import namer
from providers.errors import ProviderError
from providers.masking import masked_words

AT = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)
TYPES = {
    "invalid_request_error",
    "authentication_error",
    "authorization_error",
    "not_found_error",
    "conflict_error",
    "rate_limit_error",
    "api_error",
}

names = st.sampled_from(
    (
        *("message", "code", "error", "errors", "field", "title", "source", "parameter", "params", "successes"),
        *("resource_type", "resource_id", "invalid_action", "Processing", "payment", "Invalid API key"),
    )
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | names
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5), max_leaves=12
)
bodies = st.binary(max_size=200) | trees.map(lambda value: json.dumps(value).encode())
statuses = st.integers(100, 599)
waits = st.none() | st.text(max_size=40) | st.sampled_from(["0", "5", "-1", "1e9", "9" * 50, "Wed, 01 Apr 2026"])


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(statuses, bodies, waits)
def test_every_answer_has_an_error(status, body, wait):
    headers = {} if wait is None else {"retry-after": wait}
    for name_error in (namer(Payfield.with_options().page), banked.name_error):
        error = name_error(HttpAnswer(status, headers, body, AT))

        assert isinstance(error, ProviderError)
        assert error.type in TYPES
        assert error.http_status == status
        assert error.message.isprintable()
        assert len(error.message) <= 220
        assert error.retry_after is None or 0 <= error.retry_after <= 86_400
        assert not (error.may_retry and status in {400, 403, 404})
        for text in (error.provider_code, error.param, error.created_ref):
            assert text is None or (0 < len(text) <= 200 and text.isprintable())


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(st.text(max_size=40), st.from_regex(r"[0-9]{4}([ -]?[0-9]{4}){1,3}", fullmatch=True), st.text(max_size=40))
def test_no_number_of_an_account_is_shown(before, number, after):
    shown = masked_words(f"{before} {number} {after}")
    assert number not in shown
    assert shown.isprintable()
    assert len(shown) <= 200


def test_ordinary_words_and_amounts_stay():
    for text in (
        "Shop currency mismatch. Expected BDT.",
        "amount must be at least 5000.00",
        "field line_items.0.amount",
    ):
        assert masked_words(text) == text
    assert masked_words("key 7f3e9a1b2c4d5e6f7a8b9c0d1e2f3a4b refused") == "key [secret] refused"
    assert masked_words(None) == masked_words(7) == masked_words(b"x") == ""
