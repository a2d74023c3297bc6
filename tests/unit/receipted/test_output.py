"""Tables in terminals of any width: nothing is cut, no word is broken, and each value has its name."""

import sys

import pytest
from rich.console import Console

from receipted.cli import output

COLUMNS = ("ID", "Account", "Amount", "State", "Reason")
ROWS = [
    ("a0444d76d7a4", "genius", "344.37 USD", "settled", "the provider's statements have no legal order"),
    ("6c07a3c345e8", "banked", "9.00 GBP", "failed", None),
]


@pytest.fixture
def printed(monkeypatch, capsys):
    """What a table looks like so many columns wide."""

    def at(width, columns=COLUMNS, rows=ROWS):
        monkeypatch.setattr(output, "console", lambda: Console(file=sys.stdout, width=width))
        output.table(columns, rows)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return at


def test_where_every_column_fits_each_has_one(printed):
    """Amounts end in one place, so that they can be compared."""
    head, first, second = printed(120)

    assert head.split() == list(COLUMNS)
    assert first.index("344.37 USD") + len("344.37 USD") == second.index("9.00 GBP") + len("9.00 GBP")


def test_only_a_long_text_is_told_in_several_lines(printed):
    """A word is not broken, and nothing else is wrapped."""
    lines = printed(80)

    assert lines[1].startswith("a0444d76d7a4  genius")
    assert "344.37 USD  settled" in lines[1]
    told = " ".join(line[lines[0].index("Reason") :].strip() for line in lines[1:4])
    assert told.startswith("the provider's statements have no legal order")


@pytest.mark.parametrize("width", [20, 40, 56])
def test_in_a_narrow_terminal_the_last_columns_stand_below_their_row(printed, width):
    """With their names; what is empty takes no place, and nothing of a value is lost."""
    lines = printed(width)
    text = " ".join(" ".join(lines).split())

    assert all(len(line) <= width for line in lines)
    assert lines[1].startswith("a0444d76d7a4")
    assert "reason: the provider's statements have no legal order" in text
    assert text.count("reason:") == 1
    for row in ROWS:
        assert all(value in text for value in row if value)


def test_what_is_copied_is_in_one_piece(printed):
    """A hash stands on a line of its own rather than in two."""
    digest = "33e13451b683887f2fd3fd89ef7f2f8d08858ab22a16d767f9f5da45bfed02aa"

    assert any(digest in line for line in printed(72, ("ID", "State", "Hash"), [("a0444d76d7a4", "paid", digest)]))


def test_values_cannot_steer_a_narrow_terminal_either(printed):
    """Text of others is neither markup nor control."""
    lines = printed(30, ("ID", "Reason"), [("a0444d76d7a4", "[red]\x1b[2J" + "x" * 20)])

    assert "\x1b" not in "".join(lines)
    assert "[red]" in "".join(lines)
