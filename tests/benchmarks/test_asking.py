"""Ours beside round robin, with five thousand open requests at an enforced five a second."""

import pytest
from structlog.testing import capture_logs

from tests.benchmarks.asking import Crowd, compare


@pytest.mark.benchmark
@pytest.mark.timeout(600)
def test_asking(tmp_path):
    """No answer is a 429; the figures are printed, and are no gate."""
    crowd = Crowd(seconds=90.0)
    with capture_logs():
        found = compare(crowd, tmp_path)
    print(f"\n{crowd.old} open requests, {crowd.arrivals:g} more a second, 5 questions a second, {crowd.seconds:g} s:")
    for result in found:
        print(result)

    assert [result.refused for result in found] == [0, 0]


@pytest.mark.slow
def test_a_full_house_meets_no_429(tmp_path):
    """A short run of the same: ours asks as much as it may and is never refused."""
    with capture_logs():
        found, _ = compare(Crowd(seconds=15.0, median=3.0), tmp_path)

    assert found.refused == 0
    assert found.questions > 15 * 3
