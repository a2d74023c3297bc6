"""What a question is counted as."""

import pytest

from poller.polling import _outcome
from providers.errors import ProviderError
from receipted.metrics.catalogue import POLLS


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ProviderError("too much", http_status=429), "limited"),
        (ProviderError("no", http_status=404), "refused"),
        (ProviderError("down", http_status=503), "away"),
        (ProviderError("no answer", may_retry=True), "away"),
        (ProviderError("a bug"), "failed"),
    ],
)
def test_a_question_without_an_answer_is_counted_by_why(error: ProviderError, outcome: str) -> None:
    assert _outcome(error) == outcome
    assert outcome in (POLLS.labels["outcome"] or ())
