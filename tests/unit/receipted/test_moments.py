"""Moments as people type them."""

from datetime import UTC, datetime, timedelta

import pytest

from receipted.cli.exits import InvalidInput
from receipted.cli.options import format_seconds, parse_instant
from tests.support.clock import START


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("36h", timedelta(hours=36)),
        ("2d", timedelta(days=2)),
        (" 1w ", timedelta(weeks=1)),
    ],
)
def test_so_long_ago(text, ago):
    assert parse_instant(text, START, option="since") == START - ago


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01T12:00Z", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01T12:00+02:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
    ],
)
def test_instants_and_days_are_utc_unless_they_say(text, at):
    assert parse_instant(text, START, option="since") == at


@pytest.mark.parametrize("text", ["", "yesterday", "2d ago", "-2d", "2.5d", "٢d", "999999w", "9999999d", "2026-13-01"])
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(InvalidInput, match="--until takes a moment such as 2026-11-01") as refused:
        parse_instant(text, START, option="until")
    assert refused.value.param == "until"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0, "0s"), (0.4, "0s"), (59, "59s"), (60, "1m"), (3661, "1h 1m"), (7200, "2h"), (200_000, "2d 7h")],
)
def test_how_long_is_told_in_two_units(seconds, words):
    assert format_seconds(seconds) == words
