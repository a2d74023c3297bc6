"""Charts are drawn without what a strict policy forbids, and tell everything in words too."""

import re
import xml.etree.ElementTree as ET

import pytest

from console.charts import Chart, Series, largest_names

HOSTILE = '<img src=x onerror="alert(1)">&]]>'


def parsed(drawn):
    return ET.fromstring(str(drawn).replace(' xmlns="http://www.w3.org/2000/svg"', ""))  # noqa: S314 - our own


def a_chart(**changes):
    given = {
        "id": "c",
        "title": "Deliveries",
        "description": "Seven in all.",
        "heading": "Minute",
        "labels": ["10:00", "10:01", "10:02"],
        "series": [Series("applied", [3, 0, 2], "chart-ok"), Series("rejected", [0, 2, None], "chart-bad")],
    }
    return Chart(**(given | changes))


@pytest.mark.parametrize("kind", ["bars", "lines"])
def test_it_holds_no_style_no_script_and_nothing_from_elsewhere(kind):
    drawn = str(getattr(a_chart(), kind)())

    assert not re.search(r"<style|<script|style=|<!--|href|on\w+=", drawn)
    root = parsed(drawn)
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", "c-title c-desc")
    assert [root.find(tag).text for tag in ("title", "desc")] == ["Deliveries", "Seven in all."]


def test_each_bar_is_told_in_words_and_toned_by_its_series():
    root = parsed(a_chart().bars())

    groups = {group.get("class"): group for group in root.iter("g") if "series" in group.get("class", "")}
    told = {tone: [title.text for title in group.iter("title")] for tone, group in groups.items()}
    assert told == {
        "series chart-ok": ["10:00: 3 applied", "10:02: 2 applied"],
        "series chart-bad": ["10:01: 2 rejected"],
    }


@pytest.mark.parametrize("kind", ["bars", "lines"])
def test_names_of_others_are_text_and_nothing_else(kind):
    chart = a_chart(title=HOSTILE, labels=[HOSTILE] * 3, series=[Series(HOSTILE, [1, 2, 3], "chart-ok")])

    root = parsed(getattr(chart, kind)())

    assert root.find("title").text == HOSTILE
    assert not list(root.iter("img"))


def test_lines_are_broken_where_nothing_is_known():
    chart = a_chart(labels=list("abcd"), series=[Series("half", [0.1, 0.2, None, 0.3], "chart-ok")], unit=" s")

    paths = [path.get("d") for path in parsed(chart.lines()).iter("path") if "line reactive" in path.get("class", "")]

    assert len(paths) == 1
    assert paths[0].count(" ") == 3, "two points, and none beyond the gap"


def test_a_point_without_neighbours_is_seen():
    chart = a_chart(series=[Series("half", [None, 0.1, None], "chart-ok")], unit=" s")

    points = [title.text for group in parsed(chart.lines()).iter("g") for title in group.findall("title")]

    assert points == ["10:01: 0.1 s half"]


def test_what_is_counted_has_no_halves():
    chart = a_chart(labels=["a", "b"], series=[Series("paid", [3, 1], "chart-ok")])

    axis = next(group for group in parsed(chart.bars()).iter("g") if "axis y" in group.get("class", ""))

    assert [text.text for text in axis.iter("text")] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("values", [[], [0, 0, 0], [None, None, None]])
def test_nothing_to_draw_is_known(values):
    assert a_chart(series=[Series("applied", values, "chart-ok")]).is_empty
    assert not a_chart().is_empty


def test_values_are_told_with_their_unit():
    assert a_chart().format(12345) == "12,345"
    assert a_chart(unit=" s").format(0.025) == "0.025 s"
    assert a_chart().format(None) == "–"


def test_the_largest_shares_are_named_in_order():
    assert largest_names({"b": 5, "a": 5, "c": 1, "d": 9}, 3) == ["a", "b", "d"]
