"""A lifecycle's drawing: geometry over every lifecycle of the providers, and the way that a payment took."""

import functools
from datetime import timedelta
from itertools import combinations, pairwise

import pytest

from console.lifecycle_svg import CHAR_WIDTH_RATIO, DrawnTransition, draw_lifecycle, drawn_moves
from statemachine.lifecycle import NOT_CREATED
from statemachine.machine import moves_of
from tests.support.builders import LIFECYCLES, PROVIDERS, a_lifecycle
from tests.support.clock import START

SESSION = PROVIDERS["banked"].lifecycles["payment_session"]


def walks(lifecycle):
    """No way at all, the shortest to every state, and ways back and against the lifecycle from each."""
    yield (), None
    for name in (*(state.name for state in lifecycle.states), NOT_CREATED):
        walk = moves_of(lifecycle).walk(None, name)
        yield (DrawnTransition(1, None, name, via=walk[:-1], at=START, phase="open"),), name
        for other in lifecycle.by_name:
            if other != name:
                first = DrawnTransition(1, None, name, via=walk[:-1], at=START)
                legal = moves_of(lifecycle).walk(name, other)
                yield (first, DrawnTransition(2, name, other, (legal or ())[:-1], legal is None, START)), other
    yield (DrawnTransition(1, None, "a word of tomorrow's", at=START, phase="paid"),), "a word of tomorrow's"


@functools.cache
def drawn():
    """Draw every walk of every lifecycle, once for the whole module."""
    return [draw_lifecycle(lifecycle, way, state) for lifecycle in LIFECYCLES for way, state in walks(lifecycle)]


def segments(arrow):
    return list(pairwise(arrow.points))


def shared(one, other):
    """How long two axis-parallel segments run along each other."""
    (ax, ay), (bx, by) = one
    (cx, cy), (dx, dy) = other
    if ax == bx == cx == dx:
        return min(max(ay, by), max(cy, dy)) - max(min(ay, by), min(cy, dy))
    if ay == by == cy == dy:
        return min(max(ax, bx), max(cx, dx)) - max(min(ax, bx), min(cx, dx))
    return 0


def is_inside(segment, box):
    """Whether a segment runs through the inside of a box."""
    (ax, ay), (bx, by) = segment
    return (
        min(ax, bx) < box.x + box.width
        and max(ax, bx) > box.x
        and min(ay, by) < box.y + box.height
        and max(ay, by) > box.y
    )


def test_no_two_boxes_overlap():
    for drawing in drawn():
        for one, other in combinations(drawing.boxes, 2):
            assert one.y + one.height < other.y or other.y + other.height < one.y, drawing.name


def test_every_label_is_inside_its_box():
    for drawing in drawn():
        for box in drawing.boxes:
            assert box.texts[0].words == box.name
            for text in box.texts:
                assert text.x > box.x
                assert text.x + len(text.words) * text.size * CHAR_WIDTH_RATIO < box.x + box.width
                assert text.y - text.size > box.y
                assert text.y + text.size * 0.3 < box.y + box.height


def test_everything_is_on_the_sheet():
    for drawing in drawn():
        for box in drawing.boxes:
            assert 0 <= box.x < box.x + box.width <= drawing.width
            assert 0 <= box.y < box.y + box.height <= drawing.height
        for arrow in drawing.arrows:
            assert all(0 <= x <= drawing.width and 0 <= y <= drawing.height for x, y in arrow.points)


def test_every_legal_way_fits_a_telephone():
    """What was forced may need a lane more, and a box of its own to be scrolled in."""
    legal = [drawing for drawing in drawn() if not any(arrow.is_forced for arrow in drawing.arrows)]

    assert {drawing.name for drawing in legal} == {lifecycle.name for lifecycle in LIFECYCLES}
    assert {drawing.name: drawing.width for drawing in legal if drawing.width > 330} == {}


@pytest.mark.parametrize("lifecycle", LIFECYCLES, ids=lambda lifecycle: lifecycle.name)
def test_every_legal_move_is_drawn_once(lifecycle):
    legal = {(source, target) for source, targets in lifecycle.moves.items() for target in targets}
    legal |= {(None, name) for name in lifecycle.initial}
    moves = [(arrow.source, arrow.target) for arrow in draw_lifecycle(lifecycle).arrows]

    assert set(moves) == legal
    assert len(moves) == len(legal)


def test_moves_join_only_on_their_way_to_the_same_state():
    """Two arrows run along each other where they have one target, and nowhere else."""
    for drawing in drawn():
        for one, other in combinations(drawing.arrows, 2):
            if one.target != other.target or one.is_forced != other.is_forced:
                longest = max(shared(a, b) for a in segments(one) for b in segments(other))
                assert longest <= 0, f"{drawing.name}: {one} and {other}"


def test_no_arrow_runs_over_a_box():
    for drawing in drawn():
        for arrow in drawing.arrows:
            for segment in segments(arrow):
                assert not [box.name for box in drawing.boxes if is_inside(segment, box)], f"{drawing.name}: {arrow}"


def test_every_arrow_begins_and_ends_at_its_boxes():
    for drawing in drawn():
        boxes = {box.name: box for box in drawing.boxes}
        for arrow in drawing.arrows:
            assert is_at_edge(arrow.points[-1], boxes[arrow.target])
            assert arrow.source is None or is_at_edge(arrow.points[0], boxes[arrow.source])


def is_at_edge(point, box):
    x, y = point
    beside = x in (box.x, box.x + box.width) and box.y < y < box.y + box.height
    return beside or (y in (box.y, box.y + box.height) and box.x < x < box.x + box.width)


def test_the_way_is_the_transitions():
    """Every step of every transition is marked with its number, and nothing else is."""
    for lifecycle in LIFECYCLES:
        for way, state in walks(lifecycle):
            drawing = draw_lifecycle(lifecycle, way, state)
            marked = {(arrow.source, arrow.target): arrow.numbers for arrow in drawing.arrows if arrow.walked}
            taken: dict[tuple[str | None, str], list[int]] = {}
            for passage in way:
                stops = (passage.source, *passage.via, passage.target)
                for move in pairwise(stops):
                    taken.setdefault(move, []).append(passage.number)
            assert marked == {move: tuple(numbers) for move, numbers in taken.items()}
            entered = {box.name for box in drawing.boxes if box.entered}
            assert entered == {target for _, target in taken} | ({state} - {None})


def test_what_was_skipped_and_what_is_now_look_different():
    way = (
        DrawnTransition(1, None, "awaiting_provider", at=START),
        DrawnTransition(
            2, "awaiting_provider", "pending", via=("awaiting_payment_consent",), at=START + timedelta(minutes=1)
        ),
    )

    drawing = draw_lifecycle(SESSION, way, "pending")

    entered = {box.name: box.entered for box in drawing.boxes if box.entered}
    assert entered == {"awaiting_provider": "passed", "awaiting_payment_consent": "skipped", "pending": "current"}
    walked = {(arrow.source, arrow.target): arrow.walked for arrow in drawing.arrows if arrow.walked}
    assert walked == {
        (None, "awaiting_provider"): "passed",
        ("awaiting_provider", "awaiting_payment_consent"): "skipped",
        ("awaiting_payment_consent", "pending"): "passed",
    }
    (now,) = (box for box in drawing.boxes if box.entered == "current")
    assert [text.words for text in now.texts] == ["pending", "processing", f"{START + timedelta(minutes=1):%F %T}Z"]


def test_a_state_that_was_entered_twice_shows_the_last_time():
    way = (
        DrawnTransition(1, None, "awaiting_provider", at=START),
        DrawnTransition(2, "awaiting_provider", "awaiting_payment_consent", at=START + timedelta(minutes=1)),
        DrawnTransition(3, "awaiting_payment_consent", "awaiting_provider", at=START + timedelta(minutes=2)),
    )

    drawing = draw_lifecycle(SESSION, way, "awaiting_provider")

    (now,) = (box for box in drawing.boxes if box.entered == "current")
    assert now.texts[-1].words == f"{START + timedelta(minutes=2):%F %T}Z (2x)"
    (back,) = (arrow for arrow in drawing.arrows if arrow.source == "awaiting_payment_consent" and arrow.walked)
    assert back.points[0][1] > back.points[-1][1]


def test_a_forced_move_has_a_way_of_its_own():
    way = (
        DrawnTransition(1, None, "failed", via=("awaiting_provider",), at=START),
        DrawnTransition(2, "failed", "sent", forced=True, at=START),
    )

    drawing = draw_lifecycle(SESSION, way, "sent")

    assert [(arrow.source, arrow.target) for arrow in drawing.arrows if arrow.is_forced] == [("failed", "sent")]


def test_what_the_lifecycle_does_not_know_stands_apart():
    drawing = draw_lifecycle(a_lifecycle(), (DrawnTransition(1, None, "gone", at=START, phase="paid"),), "gone")

    (unknown,) = (box for box in drawing.boxes if box.is_unknown)
    assert (unknown.name, unknown.phase, unknown.entered) == ("gone", "paid", "current")


def test_what_is_ours_is_drawn_where_it_happened():
    lifecycle = a_lifecycle()

    assert NOT_CREATED not in {box.name for box in draw_lifecycle(lifecycle).boxes}
    refused = draw_lifecycle(lifecycle, (DrawnTransition(1, None, NOT_CREATED, at=START),), NOT_CREATED)
    assert {(arrow.source, arrow.target) for arrow in refused.arrows} >= {(None, NOT_CREATED), (NOT_CREATED, "new")}
    assert not [arrow for arrow in refused.arrows if arrow.is_forced]


def test_steps_name_each_move_with_what_told_of_it():
    (skipped, told) = drawn_moves([DrawnTransition(4, "a", "c", via=("b",), at=START)])

    assert (skipped.source, skipped.target, skipped.skips, skipped.at) == ("a", "b", True, None)
    assert (told.source, told.target, told.skips, told.at) == ("b", "c", False, START)


def test_a_path_has_round_corners_and_ends_at_its_arrow():
    (arrow,) = (
        each for each in draw_lifecycle(SESSION).arrows if (each.source, each.target) == ("awaiting_provider", "failed")
    )
    (edge, out), (beside, _), (_, into), (end, last) = arrow.points

    assert arrow.path.startswith(f"M{edge:g} {out:g}L{beside - 5:g} {out:g}Q{beside:g} {out:g}")
    assert arrow.path.endswith(f"L{end:g} {last:g}")
    assert (end, last) == (edge, into)
    assert arrow.head.split()[0] == f"{end:g},{last:g}"
