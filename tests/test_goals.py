"""Streams that hold a quality or a speed: policies on simulated videos, and on tiny teachers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v import Adapter
from shortcutv2v.errors import InputError
from shortcutv2v.goals import parse_quality, policy_for
from shortcutv2v.quality import Calibration, Quality, Speed
from shortcutv2v.refresh import Every, Look, RefreshPolicy
from shortcutv2v.summary import psnr


def look(distance: int, unexplained: float) -> Look:
    return Look(distance, None, predict=lambda: (SimpleNamespace(unexplained=torch.tensor([unexplained])),))


def simulate(policy: Quality, frames: int, true: Callable[[int, int], tuple[float, float]]) -> list[float | None]:
    """PSNR of the shown predictions, None at refreshes. `true(frame, distance)` gives the signal in dB and the PSNR."""
    distance, shown = 0, []
    for frame in range(frames):
        distance += 1
        signal, value = true(frame, distance)
        seen = look(distance, 10 ** (signal / 10))
        if policy(seen):
            if seen.looked:
                policy.audit(seen, value)
            distance = 0
        shown.append(None if distance == 0 else value)
    return shown


class TestQuality:
    @pytest.mark.parametrize("share", [0.9, 0.95, 0.98])
    @pytest.mark.parametrize("drift", ["none", "slow", "jumps", "noise"])
    def test_coverage_holds_while_the_level_drifts(self, share: float, drift: str) -> None:
        """Level 4 dB off the calibration, a slope that is off by a third, and noise in every frame."""
        draw = random.Random(0)

        def true(frame: int, distance: int) -> tuple[float, float]:
            level = {"none": 4, "slow": 4 * math.sin(frame / 300), "jumps": 3 * (frame // 400 % 2), "noise": 4}[drift]
            signal = -40 + 8 * math.log2(1 + distance) + draw.gauss(0, 1)
            return signal, 14 + level - 0.55 * signal + draw.gauss(0, 1.0 if drift == "noise" else 0.3)

        shown = simulate(Quality(30.0, share, level=10.0, guarantee=16), 6000, true)
        held = [found >= 30.0 for found in shown if found is not None]
        assert sum(held) / len(held) >= share - 0.015
        assert len(held) > 1500  # not by refreshing all the time

    def test_a_cut_is_found_and_measured_anew(self) -> None:
        def true(frame: int, distance: int) -> tuple[float, float]:
            if frame in (50, 100):  # nothing of the old scene explains the new one
                return -5.0, 12.0
            level = 14 if frame < 50 else 12  # the new scene's level is lower than what was learnt
            return -40 + distance, level + 0.74 * (40 - distance)

        shown = simulate(Quality(38.0, level=14.0), 150, true)
        assert shown[50] is None
        assert shown[100] is None
        assert all(found >= 37.5 for found in shown if found is not None)
        assert sum(found is None for found in shown[51:56]) <= 2

    def test_a_flash_leaves_no_ghosts(self) -> None:
        """Clipped white hides errors, so that the level measured there misleads; predicted from white, all is lost."""

        def true(frame: int, distance: int) -> tuple[float, float]:
            if frame == 40:
                return -12.0, 33.0
            if frame == 41:
                return -15.0, 45.0
            if frame > 41 and frame - distance == 41:
                return -6.0, 28.0
            return -24.0 + distance, 24 + 0.74 * (24 - distance)

        shown = simulate(Quality(38.0, level=24.0), 120, true)
        assert all(found >= 37.5 for found in shown if found is not None)
        assert sum(found is not None for found in shown[60:]) > 30

    @pytest.mark.parametrize(("share", "most"), [(0.35, 31), (0.1, 110)])
    def test_a_quality_out_of_reach_is_said_and_costs_few_looks(self, share: float, most: int) -> None:
        policy = Quality(60.0, level=14.0, look=share)
        looked = 0
        for _ in range(500):
            seen = look(1, 1e-4)
            assert policy(seen)
            looked += seen.looked
            if seen.looked:
                policy.audit(seen, 43.6)
        assert looked * share <= 0.025 * 500  # 2.5 % slower at most
        assert most * 0.8 < looked <= most  # as often as that allows: cheap looks are more
        assert policy.note() == "60 dB cannot be held: one frame after a refresh the block reaches 43.6 dB"
        policy.audit(look(1, 1e-4), 61.0)
        assert "cannot be held in places" in policy.note()
        assert policy.note().endswith("reaches 61.0 dB at best")

    def test_it_recovers_when_the_scene_comes_to_rest(self) -> None:
        shown = simulate(
            Quality(40.0, level=14.0), 400, lambda frame, _: (-30.0, 36.2) if frame < 200 else (-50.0, 51.0)
        )
        assert all(found is None for found in shown[:200])
        assert sum(found is not None for found in shown[200:]) > 120

    def test_after_two_needless_refusals_a_frame_is_shown(self) -> None:
        answers = {}
        for reason in ("distance", "estimate"):
            policy = Quality(30.0, level=10.0, margin=1.0)
            policy.audit(look(1, 1e-4), 30.0)
            for _ in range(2):
                refused = look(1, 1e-4)
                assert policy(refused) == "estimate"
                refused.reason = reason
                policy.audit(refused, 31.0)
            answers[reason] = policy(look(1, 1.15e-4))
        assert answers == {"distance": "estimate", "estimate": ""}

    def test_a_prediction_from_both_references_is_worth_a_little_more(self) -> None:
        policy, seen = Quality(30.0, level=10.0), [look(1, 1e-4) for _ in range(2)]
        policy.audit(look(1, 1e-4), 40.0)
        seen[1].both = True
        for each in seen:
            policy(each)
        one, both = (each.estimate for each in seen)
        assert one == 40.0
        assert both == 40.2

    def test_is_a_pure_function_of_what_it_is_shown(self) -> None:
        draw = random.Random(1)
        told = [(draw.randint(1, 9), 10 ** draw.uniform(-5, -2), draw.uniform(30, 45)) for _ in range(200)]

        def answers() -> list[str]:
            policy, found = Quality(38.0, level=12.0), []
            for distance, unexplained, reached in told:
                seen = look(distance, unexplained)
                found.append(policy(seen))
                if found[-1] and seen.looked:
                    policy.audit(seen, reached)
            return found

        assert answers() == answers()

    @pytest.mark.parametrize("bad", [{"target": 0}, {"target": 200}, {"target": 40, "share": 1.0}, {"target": "x"}])
    def test_bad_values(self, bad: dict[str, Any]) -> None:
        with pytest.raises(InputError):
            Quality(**bad)


class TestSpeed:
    @pytest.mark.parametrize("target", [1.5, 2.5, 3.5])
    def test_holds_the_mean_speed_and_refreshes_the_worst(self, target: float) -> None:
        draw = random.Random(0)
        policy, seconds, distance = Speed(target, interval=30), 0.0, 0
        refreshed, others = [], []
        for frame in range(3000):
            distance += 1
            moving = frame // 100 % 2  # scenes at rest and in motion in turn
            unexplained = 10 ** (-5 + moving + distance / 10 + draw.gauss(0, 0.1))
            seen = look(distance, unexplained)
            seen.times = (1.0, 0.2)
            due = bool(policy(seen))
            (refreshed if due else others).append(moving)
            distance = 0 if due else distance
            seconds += 1.2 if due else 0.2
        assert 3000 / seconds == pytest.approx(target, rel=0.06)
        assert sum(refreshed) / len(refreshed) > 0.55

    def test_bad_values(self) -> None:
        for bad in (1, 0.5, float("inf"), "fast"):
            with pytest.raises(InputError, match="speed must be a number above 1"):
                Speed(bad)


@pytest.mark.parametrize("bad", ["good", "40fps", "-3", "dB", "40@200", True, [40]])
def test_quality_texts_that_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="expected a PSNR in dB such as 40"):
        parse_quality(bad)


@pytest.fixture
def model(chain: nn.Module) -> shortcutv2v.ShortcutV2V:
    torch.manual_seed(1)
    wrapped = shortcutv2v.wrap(chain.eval(), "1", "4", channels=4, max_interval=9)
    shortcutv2v.fit(wrapped, moving(24), minutes=None, max_steps=30, progress=False, cache=None)
    return wrapped


def moving(frames: int, seed: int = 0) -> torch.Tensor:
    """A smooth picture that moves by a pixel per frame; uint8 (T, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.rand(1, 3, 8, 8 + frames // 2, generator=generator)
    wide = nn.functional.interpolate(wide, size=(24, 2 * (24 + frames)), mode="bicubic").clamp(0, 1)[0]
    return torch.stack([(wide[..., i : i + 32] * 255).byte() for i in range(frames)])


def floats(clip: torch.Tensor) -> torch.Tensor:
    return clip[:, None].float() / 255


class TestStreams:
    def test_lossless_is_the_teacher_bit_for_bit(self, model: shortcutv2v.ShortcutV2V) -> None:
        stream = model.stream(quality="lossless")
        with torch.no_grad():
            assert all(torch.equal(stream(frame), model.teacher(frame)) for frame in floats(moving(6)))
        assert stream.shortcuts == 0

    def test_a_quality_is_estimated_audited_and_held(self, model: shortcutv2v.ShortcutV2V) -> None:
        calibration = model.calibrate(moving(40, 1))
        assert calibration.frames > 20
        assert calibration.slope < 0
        clip = floats(moving(60, 2))
        with torch.no_grad():
            taught = [model.teacher(frame) for frame in clip]

        def play(stream: shortcutv2v.Stream) -> list[float]:
            pairs = [(stream(frame), stream.distance, true) for frame, true in zip(clip, taught, strict=True)]
            return [float(psnr(output, true)) for output, distance, true in pairs if distance]

        target = sorted(play(model.stream(refresh=9)))[24]  # what half of its predictions reach
        stream = model.stream(quality=target)
        shown = play(stream)
        summary = stream.summary()
        assert summary.frames == 60
        assert summary.shortcuts == len(shown) > 5
        assert sum(found >= target for found in shown) / len(shown) >= 0.9
        assert summary.audited is not None
        assert summary.estimated is not None
        assert abs(summary.estimated.mean - sum(shown) / len(shown)) < 1.5
        assert f"{len(shown)} shortcut" in str(summary)

    def test_without_calibration_the_first_audits_serve(self, model: shortcutv2v.ShortcutV2V) -> None:
        stream = model.stream(quality=15)
        for frame in floats(moving(10)):
            stream(frame)
        assert stream.refreshes["audit"] == 1
        assert stream.shortcuts > 5

    def test_a_batch_holds_it_row_by_row(self, model: shortcutv2v.ShortcutV2V) -> None:
        clips = [floats(moving(12, seed)) for seed in (3, 4)]
        together = model.stream(quality=22)
        alone = [model.stream(quality=22) for _ in clips]
        for frames in zip(*clips, strict=True):
            together(torch.cat(frames))
            for stream, frame in zip(alone, frames, strict=True):
                stream(frame)
            assert together.distances == tuple(stream.distance for stream in alone)
        torch.testing.assert_close(
            sorted(together.record.audits),
            sorted(a for stream in alone for a in stream.record.audits),
            atol=0.01,
            rtol=0,
        )

    def test_one_goal_at_a_time(self, model: shortcutv2v.ShortcutV2V) -> None:
        with pytest.raises(InputError, match="one of refresh=, quality= and speed="):
            model.stream(refresh=3, quality=40)
        with pytest.raises(InputError, match="one of refresh=, quality= and speed="):
            model.stream(quality=40, speed=2)
        assert model.stream(speed=2.5).refresh == Speed(2.5, 9)
        assert policy_for(Every(3), 9, None, quality="lossless") == Every(1)

    def test_a_calibration_is_saved_with_the_block(self, model: shortcutv2v.ShortcutV2V, tmp_path: Path) -> None:
        found = model.calibrate([*moving(40, 1)])  # a list of frames is a clip, too
        assert found.slope == model.calibrate(moving(40, 1)).slope
        found = model.calibration
        model.refresh = model.stream(quality=30).refresh
        model.save(tmp_path / "block")
        loaded = shortcutv2v.load(tmp_path / "block", model.teacher)
        assert loaded.calibration == found
        assert loaded.refresh == Quality(30.0, 0.95, 9, 0, found.slope, found.level, found.margin, found.look)

    def test_calibration_refuses_what_does_not_serve(self, model: shortcutv2v.ShortcutV2V) -> None:
        with pytest.raises(InputError, match="another teacher"):
            model.calibrate(moving(40), Adapter(nn.Identity()))
        with pytest.raises(InputError, match="too few for a calibration"):
            model.calibrate(moving(4))
        with pytest.raises(InputError, match="0 frames that move"):
            model.calibrate(moving(1).expand(40, -1, -1, -1))
        assert model.calibration is None

    def test_no_gain_is_said_once(self, model: shortcutv2v.ShortcutV2V) -> None:
        stream = model.stream(quality="lossless")
        frame = floats(moving(1))[0]
        with pytest.warns(UserWarning, match="not one shortcut frame in 100 frames") as told:
            _ = [stream(frame) for _ in range(250)]
        assert len(told) == 1


def test_an_unknown_calibration_is_none() -> None:
    assert Calibration.from_recipe({"slope": "steep"}) is None
    assert issubclass(Quality, RefreshPolicy)


def test_fit_for_a_quality_trains_far_calibrates_and_sets_the_policy(chain: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = shortcutv2v.wrap(chain.eval(), "1", "4", channels=4)
    settings = {"minutes": None, "max_steps": 5, "progress": False, "cache": None}
    shortcutv2v.fit(model, moving(24), validation=moving(30, 1), quality="38dB@90%", **settings)
    assert model.trained_interval == 9
    assert model.calibration is not None
    known = model.calibration
    assert model.refresh == Quality(38.0, 0.9, 9, 0, known.slope, known.level, known.margin, known.look)
    model.save(tmp_path)
    assert shortcutv2v.load(tmp_path, chain).refresh == model.refresh


def test_fit_without_validation_leaves_it_to_audits(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain.eval(), "1", "4", channels=4)
    settings = {"minutes": None, "max_steps": 2, "progress": False, "cache": None, "validation": None}
    shortcutv2v.fit(model, moving(24), quality=38, **settings)
    assert model.calibration is None
    assert model.refresh == Quality(38.0)
