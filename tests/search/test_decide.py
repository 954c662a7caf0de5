"""The decisions of a search, on numbers that can be checked by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shortcutv2v.measure.advice import Times
from shortcutv2v.search import decide
from shortcutv2v.search.decide import Goal, Worth
from shortcutv2v.search.film import samples_of, stretches

TIMES = Times(teacher=10, reference=11, shortcut=4, head=1, block=2, tail=1)
QUALITY = Goal(40.0)


def test_a_film_is_a_mean_of_refreshes_and_shortcuts() -> None:
    # A refreshed frame: 11 and, since it was looked at and audited, block and tail again: 14.
    assert decide.film_seconds(100, TIMES, 0.1) == 100 * (0.1 * 14 + 0.9 * 4)


def test_a_quality_out_of_reach_costs_three_percent() -> None:
    assert decide.film_seconds(100, TIMES, 1.0) == pytest.approx(1030)
    assert decide.worth(TIMES, [[30.0, 29.0]], QUALITY, 100) == Worth(1030.0, -math.inf, 1.0)


def test_the_share_of_refreshes_is_the_mean_over_the_places() -> None:
    curves = [[50.0, 45.0, 39.0], [39.0, 50.0, 50.0], [41.0, 41.0, 41.0]]
    assert decide.worth(TIMES, curves, QUALITY, 10).share == pytest.approx((1 / 5 + 1 + 1 / 7) / 3)
    assert decide.worth(TIMES, curves, Goal(40.0, both=False), 10).share == pytest.approx((1 / 3 + 1 + 1 / 4) / 3)


def test_a_shown_frame_needs_the_margin() -> None:
    assert decide.worth(TIMES, [[40.5, 40.5]], QUALITY, 10, 0.9).share == 1.0
    assert decide.worth(TIMES, [[41.0, 40.5]], QUALITY, 10, 0.9).share == pytest.approx(1 / 3)


def test_a_speed_decides_the_share_and_the_share_the_quality() -> None:
    goal, curves = Goal(speed=1.5), [[44.0, 42.0, 40.0, 38.0], [46.0, 44.0, 42.0, 40.0]]
    found = decide.worth(TIMES, curves, goal, 30)
    assert found.share == pytest.approx((10 / 1.5 - 4) / (14 - 4))
    assert found.seconds == pytest.approx(30 * 10 / 1.5)
    # 1 of 3.75 frames is a refresh: 1.375 frames on each side, so that the second is shown at times.
    assert 42.0 <= found.quality < 43.0
    assert found.key(goal, 30, 10.0) == (0.0, -found.quality)


def test_a_speed_out_of_reach_is_late() -> None:
    goal = Goal(speed=4.0, horizon=4)
    found = decide.worth(TIMES, [[44.0, 42.0, 40.0, 38.0]], goal, 30)
    assert found.share == pytest.approx(1 / 9)
    assert found.key(goal, 30, 10.0)[0] > 0


class TestBudget:
    def test_pays_from_the_break_even_on(self) -> None:
        assert decide.budget(299, 0.4, 0.2, 60, 1800) == (0.0, 300)
        assert decide.budget(300, 0.4, 0.2, 60, 1800) == (60, 300)

    def test_is_half_of_what_is_saved(self) -> None:
        assert decide.budget(10_000, 0.4, 0.2, 60, 1800) == (1000.0, 300)

    def test_is_bounded(self) -> None:
        assert decide.budget(10**6, 0.4, 0.2, 60, 1800) == (1800, 300)

    @pytest.mark.parametrize("then", [0.4, 0.5])
    def test_never_pays_without_a_gain(self, then: float) -> None:
        assert decide.budget(10**6, 0.4, then, 60, 1800) == (0.0, None)


class TestHalving:
    def test_six(self) -> None:
        assert decide.halving(6, 720) == [(6, 20.0), (3, 60.0), (2, 120.0), (1, 480.0)]

    @given(st.integers(1, 12), st.floats(1, 1e4))
    def test_all_of_the_amount_is_spent(self, field: int, amount: float) -> None:
        rounds, before, spent = decide.halving(field, amount), 0.0, 0.0
        for each in rounds:
            spent, before = spent + each[0] * (each[1] - before), each[1]
        assert spent == pytest.approx(amount)
        assert [each[0] for each in rounds] == sorted((each[0] for each in rounds), reverse=True)
        assert rounds[-1][0] == 1

    @given(st.floats(1, 1e4), st.integers(1, 8))
    def test_the_field_is_as_large_as_time_allows(self, seconds: float, most: int) -> None:
        size = decide.halving(most, seconds, 20)[0][0]
        assert 1 <= size <= most
        assert size == 1 or decide.halving(size, seconds)[0][1] >= 20
        assert size == most or decide.halving(size + 1, seconds)[0][1] < 20


class TestDominated:
    def test_names_the_best_that_is_better(self) -> None:
        points = {"slow": (1, 40), "mid": (2, 41), "fast": (3, 41), "fine": (1, 45)}
        assert decide.dominated(points) == {"slow": "fast", "mid": "fast"}

    def test_equal_points_stay(self) -> None:
        assert decide.dominated({"a": (1, 2), "b": (1, 2)}) == {}

    @given(st.dictionaries(st.text(max_size=2), st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
    def test_the_rest_is_a_front(self, points: dict[str, tuple[int, int]]) -> None:
        worse = decide.dominated(points)
        front = [point for name, point in points.items() if name not in worse]
        assert front
        assert all(not (a != b and a[0] <= b[0] and a[1] <= b[1]) for a in front for b in front)
        assert all(points[better] in front for better in worse.values())


def test_a_round_is_judged_by_what_the_best_holds() -> None:
    field = [[[39.0, 37.0, 30.0]], [[38.0, 36.0, 35.0]]]
    assert decide.attainable(field, QUALITY) == Goal(37.0)
    assert decide.attainable([[[50.0, 49.0]]], QUALITY) == QUALITY
    assert decide.attainable(field, Goal(speed=2.0)) == Goal(speed=2.0)


def test_a_cut_is_hopeless_if_its_ends_alone_are_too_slow() -> None:
    slow = Times(10, 10, 9, 4, 1, 4)
    bound = 170 * (10 / 17 + 8 * 16 / 17)
    assert not decide.hopeless(slow, QUALITY, 170, bound + 1)
    assert decide.hopeless(slow, QUALITY, 170, bound - 1)


@given(st.integers(2, 2000), st.integers(1, 12))
def test_stretches_lie_apart_inside_the_film(frames: int, most: int) -> None:
    clip = torch.zeros(frames, 1, 1, 1, dtype=torch.uint8)
    learn, held = stretches([clip], most)
    assert 1 <= len(held) <= most
    assert len(learn) == (len(held) if frames > 3 else 0)
    assert held[0].start >= 0
    assert held[-1].stop <= frames
    assert all(len(part) >= 2 for part in held)
    assert all(part.stop == after.start for part, after in zip(learn, held, strict=False))
    assert all(one.stop <= other.start for one, other in zip(held, learn[1:], strict=False))


@given(st.integers(0, 100), st.integers(1, 12), st.integers(1, 3))
def test_features_are_computed_for_as_much_as_can_be_afforded(afford: int, stretches: int, cuts: int) -> None:
    taken, count = decide.lessons(afford, stretches, cuts)
    assert 1 <= taken <= cuts
    assert 1 <= count <= stretches
    assert taken * count <= max(1, afford)
    assert taken == 1 or count >= min(4, stretches)


@given(st.lists(st.integers(2, 500), min_size=1, max_size=4))
def test_a_trial_plays_as_many_frames_as_one_sample_spread_over_all_clips(lengths: list[int]) -> None:
    clips = [torch.zeros(length, 1, 1, 1, dtype=torch.uint8) for length in lengths]
    parts, total = samples_of(clips), sum(lengths)
    wanted = min(total, max(16, min(60, total // 4)))
    assert all(len(part) <= 31 for part in parts)
    assert {id(part.clip) for part in parts} == {id(clip) for clip in clips}
    assert all(one.stop <= other.start for one, other in itertools.pairwise(parts) if one.clip is other.clip)
    if len(clips) == 1:
        assert wanted - len(parts) < sum(map(len, parts)) <= wanted
        assert total < 128 or parts[-1].stop - parts[0].start == total
        assert [len(part) for part in samples_of(clips, 1)] == [wanted]


def test_the_audit_that_begins_a_stretch_is_not_one_of_the_film() -> None:
    still = {"frames": 17, "shortcuts": 15, "begun": 1}
    moving = {"frames": 17, "shortcuts": 0, "begun": 1}
    assert decide.refreshes_of([still]) == 1 / 16
    assert decide.refreshes_of([still, moving]) == 17 / 32
    assert decide.refreshes_of([{"frames": 1, "shortcuts": 0, "begun": 1}]) == 1.0
