"""Streams that compute windows: equal to whole frames where all are computed, and never worse than asked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.errors import InputError
from shortcutv2v.summary import psnr
from shortcutv2v.windows import Windows, WindowStream

SIZE = (97, 130)


class Enlarger(nn.Module):
    """A local teacher: plain convolutions, output twice as large."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        f = self.third(self.second(self.first(x).relu()).relu()).relu()
        out = nn.functional.pixel_shuffle(self.last(f) * 4, 2).sigmoid()
        return out if gain is None else out * gain.view(-1, 1, 1, 1)


@pytest.fixture
def model() -> shortcutv2v.ShortcutV2V:
    return shortcutv2v.wrap(Enlarger().eval(), "first", "third", example_inputs=(torch.rand(1, 3, *SIZE),))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows always pay, and crops cost by their area: the tiny teacher is faster than looking for windows."""
    for name in ("pay", "measured", "note_windows"):
        monkeypatch.setattr(f"shortcutv2v.windows.times.Times.{name}", lambda *_, **__: True)


def scene(frames: int, noise: float = 1 / 255, seed: int = 0) -> list[Tensor]:
    """A square that walks over a still picture, with sensor noise."""
    generator = torch.Generator().manual_seed(seed)
    still = torch.rand(1, 3, 13, 17, generator=generator)
    still = nn.functional.interpolate(still, size=SIZE, mode="bicubic").clamp(0.2, 0.8)
    clip = []
    for number in range(frames):
        frame = still + torch.randn(still.shape, generator=generator) * noise
        frame[..., 30:50, 5 + 4 * number : 25 + 4 * number] = torch.rand(1, 3, 20, 20, generator=generator)
        clip.append(frame)
    return clip


def trained(model: shortcutv2v.ShortcutV2V) -> shortcutv2v.ShortcutV2V:
    model.trained_interval = 9
    return model


@torch.no_grad()
def qualities(stream: WindowStream, clip: list[Tensor]) -> list[float]:
    return [float(psnr(stream(frame), stream.model.teacher(frame))[0]) for frame in clip]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("asked", [35.0, 40.0, 45.0])
def test_no_frame_falls_below_the_quality_and_little_is_computed(model: shortcutv2v.ShortcutV2V, asked: float) -> None:
    stream = model.stream(windows=Windows(size=24, quality=asked))
    assert min(qualities(stream, scene(16))) >= asked
    assert stream.counts["kept"] > 0.5 * stream.counts.total()
    assert stream.counts["refreshed"] > 0
    assert dict(stream.refreshes) == {"first": 1}
    assert "kept" in str(stream.summary())


@pytest.mark.usefixtures("patient")
def test_sensor_noise_alone_computes_audits_only(model: shortcutv2v.ShortcutV2V) -> None:
    stream = model.stream(windows=Windows(size=24, quality=38.0))
    still = torch.rand(1, 3, *SIZE)
    for _ in range(13):
        stream(still + torch.randn_like(still) / 255)
    assert stream.counts["refreshed"] == 6  # one of every two frames, after the first frame


@pytest.mark.usefixtures("patient")
def test_still_frames_give_what_the_teacher_gives(model: shortcutv2v.ShortcutV2V) -> None:
    stream, frame = model.stream(windows=Windows(size=24, halo=5)), torch.rand(1, 3, *SIZE)
    for _ in range(5):
        output = stream(frame)
        assert torch.allclose(output, model.teacher(frame), atol=1e-6)
        output.zero_()  # the caller's own


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("predict", [False, True])
def test_all_windows_equal_the_whole_frame(model: shortcutv2v.ShortcutV2V, predict: bool) -> None:
    stream = (trained(model) if predict else model).stream(windows=Windows(size=24, halo=5, rolling=1.0))
    for frame in scene(4):
        assert torch.allclose(stream(frame), model.teacher(frame), atol=1e-6)
    assert stream.counts.keys() == {"refreshed", "kept", "predicted"}
    assert stream.counts["refreshed"] == stream.counts.total() > 0
    if predict:  # the reference is patched as a whole
        expected = model.reference(frame)[1]
        assert stream.reference is not None
        for made, true in zip((*stream.reference.a, *stream.reference.f), (*expected.a, *expected.f), strict=True):
            assert torch.allclose(made, true, atol=1e-5)


@pytest.mark.usefixtures("patient")
def test_a_block_predicts_windows_and_audits_count(model: shortcutv2v.ShortcutV2V) -> None:
    stream = trained(model).stream(quality=34, windows=Windows(size=24))
    clip = scene(20)
    for frame in clip[1:]:  # small changes that the untrained block, which reuses f, cannot follow for long
        frame[..., 60:, :] += 0.04
    assert min(qualities(stream, clip)) >= 33
    assert stream.counts["predicted"] > 0
    assert stream._predictor.gains.seen >= 3


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("predict", [False, True])
def test_a_rolling_refresh_runs_the_same_work_on_every_frame(model: shortcutv2v.ShortcutV2V, predict: bool) -> None:
    share = 0.2
    stream = (trained(model) if predict else model).stream(windows=Windows(size=24, rolling=share))
    worked = []
    for frame in scene(24):
        before = stream.counts["refreshed"]
        stream(frame)
        worked.append(stream.counts["refreshed"] - before)
    assert set(worked[4:]) == {-(-len(stream._levels.grids[0]) // 5)}
    assert max(stream._shown.ages) <= 3 / share  # type: ignore[union-attr]


def test_motion_everywhere_switches_windows_off(
    model: shortcutv2v.ShortcutV2V, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", iter(range(10**6)).__next__)  # whole frames take a tick, as windows do
    stream = model.stream(windows=Windows(size=24))
    for _ in range(12):
        frame = torch.rand(1, 3, *SIZE)
        assert torch.equal(stream(frame), model.teacher(frame))
    assert stream.counts.total() == 0
    assert "whole frames were faster" in str(stream.summary())


@pytest.mark.usefixtures("patient")
def test_a_condition_or_flag_that_changes_needs_the_whole_frame() -> None:
    teacher, frame = Enlarger().eval(), torch.rand(1, 3, *SIZE)
    model = shortcutv2v.wrap(teacher, "first", "third", example_inputs=(frame, torch.ones(1)))
    stream = model.stream(windows=Windows(size=24))
    stream(frame, torch.ones(1))
    stream(frame, torch.ones(1))
    assert stream.counts["kept"]
    half = torch.full((1,), 0.5)
    assert torch.allclose(stream(frame, half), teacher(frame, half))


@pytest.mark.usefixtures("patient")
def test_frames_that_are_not_finite_do_not_stay(model: shortcutv2v.ShortcutV2V) -> None:
    stream, frame = model.stream(windows=Windows(size=24)), torch.rand(1, 3, *SIZE)
    stream(frame)
    broken = frame.clone()
    broken[..., 5, 5] = torch.nan
    assert stream(broken).isnan().any()
    assert torch.allclose(stream(frame), model.teacher(frame), atol=1e-3)


@pytest.mark.usefixtures("patient")
def test_callers_may_fill_one_buffer_again_and_again(model: shortcutv2v.ShortcutV2V) -> None:
    stream, buffer = model.stream(windows=Windows(size=24)), torch.empty(1, 3, *SIZE)
    for frame in scene(6):
        buffer.copy_(frame)
        assert float(psnr(stream(buffer), model.teacher(frame).detach())[0]) >= 40


@pytest.mark.usefixtures("patient")
def test_another_size_begins_anew(model: shortcutv2v.ShortcutV2V) -> None:
    stream = model.stream(windows=Windows(size=24))
    for size in (SIZE, SIZE, (70, 91), (70, 91), SIZE):
        frame = torch.rand(1, 3, *size)
        assert float(psnr(stream(frame), model.teacher(frame).detach())[0]) >= 40
    stream.reset()
    assert stream.counts.total() == 0


def test_a_teacher_that_is_not_local_is_refused() -> None:
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 3, 3, padding=1))
    frame = torch.rand(1, 3, *SIZE)
    stream = shortcutv2v.wrap(teacher, "0", "1", example_inputs=(frame,)).stream(windows=Windows(size=24))
    with pytest.raises(InputError, match="windows need a local teacher"):
        stream(frame)


def test_batches_are_refused(model: shortcutv2v.ShortcutV2V) -> None:
    with pytest.raises(InputError, match="a batch of 2"):
        model.stream(windows=True)(torch.rand(2, 3, *SIZE))


@pytest.mark.parametrize("settings", [{"size": 4}, {"halo": -1}, {"rolling": 1.5}, {"quality": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Windows(**settings)  # type: ignore[arg-type]


def test_a_block_that_is_shown_at_references_has_no_windows(model: shortcutv2v.ShortcutV2V) -> None:
    with pytest.raises(InputError, match="show_shortcut=False"):
        model.stream(show_shortcut=True, windows=True)


def test_lossless_leaves_nothing_to_windows(model: shortcutv2v.ShortcutV2V) -> None:
    with pytest.raises(InputError, match="exclude each other"):
        model.stream(quality="lossless", windows=True)
    assert trained(model).stream(quality=44, windows=True).quality == 44
    assert model.stream(windows=Windows(quality=33.0)).quality == 33
