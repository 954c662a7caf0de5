"""Refresh policies: what they see, whose copy runs, rows of a batch, what is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.policies import Alternating, Unexplained
from torch import nn

import shortcutv2v
from shortcutv2v.errors import CheckpointError, InputError
from shortcutv2v.refresh import Every, Function, Look, RefreshPolicy, as_policy


@pytest.fixture
def model(chain: nn.Module) -> shortcutv2v.ShortcutV2V:
    wrapped = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 8, 8),))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.normal_(std=0.3)
    return wrapped


def video(frames: int = 7, rows: int = 1) -> torch.Tensor:
    return torch.rand(frames, rows, 3, 8, 8)


def distances(stream: shortcutv2v.Stream, clip: torch.Tensor) -> list[int]:
    return [(stream(frame), stream.distance)[1] for frame in clip]


def counted(model: shortcutv2v.ShortcutV2V, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the block's methods, as they run."""
    ran: list[str] = []

    def count(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (ran.append(name), run(*args))[1]

    block = model.blocks[0]
    monkeypatch.setattr(model, "analyse", count("analyse", model.analyse))
    monkeypatch.setattr(model, "predict", count("predict", model.predict))
    assert block is model.blocks[0]
    return ran


class TestLooking:
    @pytest.mark.parametrize("show", [False, True])
    def test_costs_no_second_run_of_the_block(
        self, model: shortcutv2v.ShortcutV2V, monkeypatch: pytest.MonkeyPatch, show: bool
    ) -> None:
        stream = model.stream(refresh=Unexplained(limit=1e9), show_shortcut=show)
        ran = counted(model, monkeypatch)
        assert distances(stream, video(5)) == [0, 1, 2, 3, 4]
        assert ran == ["analyse"] * 4
        ran.clear()
        stream = model.stream(refresh=Unexplained(limit=-1), show_shortcut=show)
        assert distances(stream, video(5)) == [0] * 5
        assert ran == ["analyse"] * 4

    def test_is_lazy(self, model: shortcutv2v.ShortcutV2V, monkeypatch: pytest.MonkeyPatch) -> None:
        ran = counted(model, monkeypatch)
        distances(model.stream(refresh=3), video(4))
        assert ran == ["predict", "predict"]

    @pytest.mark.parametrize("variant", list(shortcutv2v.blocks.ShortcutBlock.variants))
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_the_frame_is_the_same_with_and_without_looking(
        self, chain: nn.Module, variant: str, layout: torch.memory_format
    ) -> None:
        model = shortcutv2v.wrap(chain, "1", "4", variant=variant)
        looking, blind = model.stream(refresh=Unexplained(limit=1e9)), model.stream(refresh=8)
        for frame in video(4):
            frame = frame.to(memory_format=layout)
            assert torch.equal(looking(frame), blind(frame))

    def test_sees_what_motion_did_not_explain(self, model: shortcutv2v.ShortcutV2V) -> None:
        frame = torch.rand(1, 3, 8, 8)
        seen = []
        stream = model.stream(refresh=lambda look: seen.append(look.predictions[0].unexplained) or False)
        for each in (frame, frame, torch.rand(1, 3, 8, 8)):
            stream(each)
        still, moved = seen
        assert still.shape == (1,)
        assert float(still) == 0.0
        assert float(moved) > 0.0

    def test_runs_compiled_code(self, model: shortcutv2v.ShortcutV2V) -> None:
        expected = distances(model.stream(refresh=Unexplained(limit=1e9)), video(3))
        ran = []

        def backend(graph: Any, inputs: Any) -> Any:
            ran.append(graph)
            return graph.forward

        model.compile(backend=backend)
        stream = model.stream(refresh=Unexplained(limit=1e9))
        stream(video(1)[0])
        before = len(ran)
        stream(video(1)[0])
        assert len(ran) > before  # the block that the policy looked at was compiled, too
        assert expected == [0, 1, 2]


class TestState:
    def test_every_stream_has_its_own(self, model: shortcutv2v.ShortcutV2V) -> None:
        policy = Alternating()
        one, other = model.stream(refresh=policy), model.stream(refresh=policy)
        clip = video(6)
        alone = distances(model.stream(refresh=policy), clip)
        together = [((one(frame), one.distance)[1], (other(frame), other.distance)[1]) for frame in clip]
        assert together == [(d, d) for d in alone]
        assert alone == [0, 0, 1, 0, 0, 1]
        assert policy == Alternating()

    def test_reset_reaches_it(self, model: shortcutv2v.ShortcutV2V) -> None:
        stream = model.stream(refresh=Alternating())
        clip = video(5)
        first = distances(stream, clip[:2])
        stream.reset()
        assert distances(stream, clip[:2]) == first
        assert stream.policies[0].wanted == 2

    def test_a_callable_object_is_copied_and_reset(self, model: shortcutv2v.ShortcutV2V) -> None:
        class Counter:
            interval = 5

            def __init__(self) -> None:
                self.asked = 0

            def __call__(self, look: Look) -> bool:
                self.asked += 1
                return False

            def reset(self) -> None:
                self.asked = 0

        counter = Counter()
        stream = model.stream(refresh=counter)
        assert stream.refresh.interval == 5
        distances(stream, video(4))
        assert counter.asked == 0
        assert stream.policies[0].function.asked == 3
        stream.reset()
        assert stream.policies[0].function.asked == 0


class TestBatches:
    @pytest.mark.parametrize("policy", [Unexplained(limit=0.0), Alternating(), Every(3)])
    def test_rows_are_videos_of_their_own(self, model: shortcutv2v.ShortcutV2V, policy: RefreshPolicy) -> None:
        still = torch.rand(1, 3, 8, 8).expand(6, 1, 3, 8, 8)
        clips = [still, video(6), video(6)]
        together = model.stream(refresh=policy)
        alone = [model.stream(refresh=policy) for _ in clips]
        for frames in zip(*clips, strict=True):
            batch = together(torch.cat(frames))
            single = [stream(frame) for stream, frame in zip(alone, frames, strict=True)]
            assert together.distances == tuple(stream.distance for stream in alone)
            torch.testing.assert_close(batch, torch.cat(single))
        total = sum((stream.refreshes for stream in alone), start=type(together.refreshes)())
        assert together.refreshes == total
        assert together.shortcuts == sum(stream.shortcuts for stream in alone)

    def test_a_moving_video_does_not_refresh_a_still_one(
        self, model: shortcutv2v.ShortcutV2V, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows: list[int] = []
        middle = model.middle
        monkeypatch.setattr(model, "middle", lambda carry: (rows.append(carry.a[0].shape[0]), middle(carry))[1])
        still = torch.rand(1, 3, 8, 8)
        stream = model.stream(refresh=Unexplained())
        for _ in range(4):
            stream(torch.cat((still, torch.rand(1, 3, 8, 8))))
        assert rows == [2, 1, 1, 1]
        assert stream.distances == (3, 0)

    def test_another_batch_size_begins_anew(self, model: shortcutv2v.ShortcutV2V) -> None:
        stream = model.stream(refresh=Alternating())
        stream(video(1, 2)[0])
        stream(video(1, 2)[0])
        stream(video(1, 3)[0])
        assert stream.distances == (0, 0, 0)
        assert stream.refreshes["size"] == 3


class TestNotFinite:
    """NaN and infinity refresh, are counted, and never become a reference."""

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_a_bad_weight_in_a_block_costs_refreshes_only(self, model: shortcutv2v.ShortcutV2V, bad: float) -> None:
        with torch.no_grad():
            model.blocks[0].reconstruct.weight[0] = bad
        stream = model.stream()
        for frame in video(5):
            assert torch.equal(stream(frame), model.teacher(frame).detach())
        assert stream.refreshes == {"first": 1, "not finite": 4}

    def test_a_bad_frame_is_over_with_the_frame(self, model: shortcutv2v.ShortcutV2V) -> None:
        clip = video(4)
        clip[1, 0, 0, 3, 3] = float("nan")
        stream = model.stream(refresh=30)
        finite = [bool(stream(frame).isfinite().all()) for frame in clip]
        assert finite == [True, False, True, True]
        assert stream.refreshes == {"first": 2, "not finite": 1}

    def test_a_bad_first_frame_is_no_reference(self, model: shortcutv2v.ShortcutV2V) -> None:
        clip = video(3)
        clip[0] = float("inf")
        stream = model.stream(refresh=30)
        finite = [bool(stream(frame).isfinite().all()) for frame in clip]
        assert finite == [False, True, True]
        assert stream.shortcuts == 1


class TestSettings:
    def test_a_function_takes_its_horizon_from_max_interval(self, chain: nn.Module) -> None:
        model = shortcutv2v.wrap(chain, "1", "4", max_interval=6, refresh=lambda look: False)
        assert model.max_interval == 6
        assert distances(model.stream(), video(8)) == [0, 1, 2, 3, 4, 5, 0, 1]

    def test_two_different_intervals_are_refused(self, chain: nn.Module) -> None:
        with pytest.raises(InputError, match=r"max_interval=6 and refresh=.*Alternating.*different intervals"):
            shortcutv2v.wrap(chain, "1", "4", max_interval=6, refresh=Alternating())
        with pytest.raises(InputError, match="different intervals"):
            shortcutv2v.wrap(chain, "1", "4", max_interval=6, refresh=2)
        assert shortcutv2v.wrap(chain, "1", "4", max_interval=4, refresh=Alternating()).max_interval == 4

    def test_an_assigned_interval_counts(self, model: shortcutv2v.ShortcutV2V) -> None:
        stream = model.stream()
        stream.refresh = 2
        assert distances(stream, video(4)) == [0, 1, 0, 1]

    @pytest.mark.parametrize("bad", [0, -1, 2.5, "often", True, Every])
    def test_what_is_refused_is_called_by_its_name(self, model: shortcutv2v.ShortcutV2V, bad: object) -> None:
        for assign in (
            lambda: model.stream(refresh=bad),
            lambda: setattr(model, "refresh", bad),
            lambda: setattr(model.stream(), "refresh", bad),
        ):
            with pytest.raises(InputError, match=r"^refresh"):
                assign()

    def test_a_longer_interval_than_trained_warns(self, model: shortcutv2v.ShortcutV2V) -> None:
        model.trained_interval = 3
        model.stream(refresh=3)
        with pytest.warns(UserWarning, match=r"trained for intervals up to 3.*allows 6"):
            model.stream(refresh=6)
        with pytest.warns(UserWarning, match="measure them"):
            model.refresh = Unexplained()

    def test_two_policies_of_one_name_are_refused(self) -> None:
        with pytest.raises(InputError, match="named Every already"):
            type("Every", (RefreshPolicy,), {})
        assert RefreshPolicy.known["Every"] is Every


class TestSaving:
    def test_a_policy_is_saved_by_name(self, model: shortcutv2v.ShortcutV2V, tmp_path: Path) -> None:
        model.refresh = Unexplained(interval=5, limit=0.25)
        model.save(tmp_path)
        assert shortcutv2v.load(tmp_path, model.teacher).refresh == Unexplained(interval=5, limit=0.25)

    def test_state_is_not_saved(self, model: shortcutv2v.ShortcutV2V, tmp_path: Path) -> None:
        model.refresh = Alternating()
        model.refresh.wanted = 2
        model.save(tmp_path)
        assert shortcutv2v.load(tmp_path, model.teacher).refresh == Alternating()

    def test_a_function_leaves_its_horizon_and_a_warning(self, model: shortcutv2v.ShortcutV2V, tmp_path: Path) -> None:
        model.refresh = Function(print, interval=7)
        model.save(tmp_path)
        with pytest.warns(UserWarning, match="refresh function 'print', which cannot be stored"):
            loaded = shortcutv2v.load(tmp_path, model.teacher)
        assert loaded.refresh == Every(7)

    def test_an_unknown_policy_says_what_to_import(
        self, model: shortcutv2v.ShortcutV2V, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model.refresh = Unexplained()
        model.save(tmp_path)
        monkeypatch.delitem(RefreshPolicy.known, "Unexplained")
        with pytest.raises(CheckpointError, match="no refresh policy 'Unexplained'.*import the module"):
            shortcutv2v.load(tmp_path, model.teacher)


def test_as_policy_keeps_a_policy() -> None:
    policy = Alternating()
    assert as_policy(policy) is policy
