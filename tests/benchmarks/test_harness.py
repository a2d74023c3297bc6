"""What the benchmark tells is true: its statistics, its report and its load generator."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.benchmarks import report
from tests.benchmarks.figures import Bar, Part, Spread, Table, number, prose, ratios
from tests.benchmarks.generator import Answers, Load, made, main
from tests.benchmarks.measuring import Target, rounds
from tests.benchmarks.servers import Served

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server on one connection at a time that gives these answers in turn, and hangs up after one that says so."""
    taken: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            left = list(answers)
            while left:
                with listener.accept()[0] as connection:
                    while left:
                        request = connection.recv(65536)
                        if not request:
                            break
                        taken.append(request)
                        answer = left.pop(0)
                        for part in (answer[:20], answer[20:]):
                            connection.sendall(part)
                        if answer == LAST or not answer:
                            break

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], taken
        thread.join(10)
        assert not thread.is_alive()


def test_every_answer_is_counted_by_its_status():
    with answering(ANSWER, REFUSAL, ANSWER, LAST, ANSWER) as (port, taken):
        load = Load(port, 1)
        done, _ = load.closed(iter(made(5, "stable_genius", "/")), 10)
        load.close()

    assert done == 5
    assert {status: count for status, count in load.answers.statuses.items() if count} == {200: 4, 503: 1}
    assert load.broken == 0
    assert len({request.partition(b"\r\n\r\n")[2] for request in taken}) == 5
    assert 0 < load.answers.percentile(0.5) <= load.answers.percentile(0.99)


@pytest.mark.parametrize("answer", [ANSWER, LAST])
def test_an_answer_counts_when_all_of_it_is_there(answer):
    answers = Answers()

    assert {answers.read(answer[:length]) for length in range(len(answer))} == {0}
    assert abs(answers.read(answer)) == 200


def test_a_connection_that_is_cut_is_no_answer():
    with answering(ANSWER, b"") as (port, _):
        load = Load(port, 1)
        done, _ = load.closed(iter(made(3, "stable_genius", "/")), 10)
        load.close()

    assert (done, load.broken, load.answers.statuses[200]) == (1, 1, 1)


def test_a_pace_is_kept():
    with answering(*[ANSWER] * 20) as (port, _):
        told = main(["--port", str(port), "--connections", "1", "--rate", "100", "--seconds", "60", "--number", "20"])

    assert told["answers"] == {"200": 20}
    assert told["is_exhausted"]
    assert 0.15 < told["seconds"] < 60


def test_repeats_are_delivered_before_they_are_measured():
    with answering(*[ANSWER] * 4, REFUSAL, b"") as (port, taken):
        told = main(["--port", str(port), "--connections", "1", "--again", "--seconds", "5", "--number", "4"])

    assert taken[:4] == [*dict.fromkeys(taken[:4])]
    assert taken[4:6] == taken[:2]
    assert told["answers"] == {"200": 4, "503": 1}


def test_a_wrong_answer_is_a_fault():
    target = Target("one", Served(0, []))
    target._judge({"answers": {"200": 5}, "broken": 0}, 64)
    assert target.faults == []

    target._judge({"answers": {"200": 5, "503": 1}, "broken": 0}, 64)
    target._judge({"answers": {"200": 5}, "broken": 2}, 64)

    assert len(target.faults) == 2


def test_a_ratio_is_taken_within_each_round():
    assert ratios([10, 100, 30], [20, 100, 10]) == Spread(1.0, 0.5, 3.0)


def test_a_round_begins_with_another_one_each_time():
    assert list(rounds("ab", 2)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a")]


def test_no_round_is_begun_when_the_time_is_over():
    assert [number for number, _ in rounds("ab", 5, seconds=-1)] == [0, 0]


@pytest.mark.parametrize(
    ("measured", "is_ceiling", "is_reached"),
    [(1.0, False, True), (0.9, False, False), (1.0, True, True), (1.1, True, False)],
)
def test_a_bar_is_reached_by_its_median(measured, is_ceiling, is_reached):
    bar = Bar("a promise", Spread(measured, 0, 9), 1.0, is_ceiling=is_ceiling)

    assert bar.is_reached is is_reached


def test_a_bar_that_was_not_measured_is_neither_reached_nor_missed():
    assert Bar("a promise", None, 1.0).is_reached is None


@pytest.mark.parametrize(
    ("figure", "words"), [(12345.6, "12,346"), (12.34, "12.3"), (1.234, "1.23"), (0.0123, "0.012")]
)
def test_figures_have_as_few_digits_as_tell_them(figure, words):
    assert number(figure) == words


def test_prose_has_one_sentence_a_line():
    assert prose("\nOne is\nlong.\nTwo.\n") == "One is long.\nTwo.\n"


def test_the_page_is_written_between_its_marks(tmp_path, monkeypatch):
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- made by make bench -->\nold\n<!-- end -->\nafter <!-- made by other --> <!-- end -->")
    monkeypatch.setattr(report, "DOCUMENT", page)
    part = Part("growth", "As it grows", "How.", [Bar("fast", Spread(2, 1, 3), 1)], chart="<svg/>")
    part.tables.append(Table("Sizes", ("name", "size"), [("one", "1")]))

    report.write("make bench", [part], report.About.here("18", 1, 1.0, 0.0))

    written = page.read_text()
    assert written.startswith("before\n<!-- made by make bench -->")
    assert written.endswith("<!-- end -->\nafter <!-- made by other --> <!-- end -->")
    assert "old" not in written
    assert "| fast | at least 1.00 | 2.00 (1.00..3.00) | reached |" in written
    assert "| one | 1 |" in written
    assert (tmp_path / "performance-growth.svg").read_text() == "<svg/>\n"


def test_what_is_saved_is_read_by_a_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    part = Part("one", "One", "", [Bar("fast", Spread(2, 1, 3), 1), Bar("away", None, 1)], faults=["lost"])

    told = json.loads(report.save("bench", [part], report.About.here("18", 1, 1.0, 0.0)).read_text())

    assert [bar["is_reached"] for bar in told["parts"]["one"]["bars"]] == [True, None]
    assert told["parts"]["one"]["bars"][0]["measured"] == {"median": 2, "least": 1, "most": 3}
    assert told["parts"]["one"]["faults"] == ["lost"]
