"""Many streams in one batch: the outputs of separate streams, whatever joins, leaves, begins anew or changes size."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tests.policies import Alternating, Unexplained, every_second
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import ShortcutV2V, Stream
from shortcutv2v.errors import InputError
from shortcutv2v.quality import Quality
from shortcutv2v.streams import Staggered


@pytest.fixture
def model(cut_teacher: tuple[nn.Module, str, str]) -> ShortcutV2V:
    return wrapped(*cut_teacher)


def wrapped(teacher: nn.Module, enc: str, dec: str, **options: Any) -> ShortcutV2V:
    made = shortcutv2v.wrap(teacher.eval(), enc, dec, example_inputs=(torch.rand(1, 3, 8, 8),), **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.1)
    return made


def pictures(output: Any) -> list[Tensor]:
    return list(output.values()) if isinstance(output, dict) else [output]


def equal(one: Any, other: Any) -> bool:
    pairs = zip(pictures(one), pictures(other), strict=True)
    return all(a.shape == b.shape and bool((a - b).abs().max() < 1e-5) for a, b in pairs)


POLICIES = {
    "interval": 3,
    "looks": Unexplained(limit=0.02),
    "remembers": Alternating(),
    "function": every_second,
    "audits": Quality(38.0, 0.95, 5),
}


@pytest.mark.parametrize("stagger", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_is_as_good_as_streams_of_their_own(model: ShortcutV2V, policy: str, stagger: bool) -> None:
    """Videos of two sizes; frames are left out, streams leave, join and begin anew."""
    draw, streams = random.Random(3), model.streams(4, refresh=POLICIES[policy], stagger=stagger)
    alone: dict[int, Stream] = {}
    for step in range(16):
        if step == 5:
            streams.leave(1)
        if step == 7:
            streams.join()
        if step == 9:
            streams[2].reset()
            alone[2].reset()
        frames = {}
        for key in streams:
            if key not in alone:
                alone[key] = model.stream(refresh=streams[key].refresh)
            size = 8 if key % 2 == 0 or step > 11 else 10
            if draw.random() < 0.85:
                frames[key] = torch.rand(1, 3, size, 8) * (0.1 if step % 5 else 1.0)
        outputs = streams(frames)
        assert list(outputs) != [] or not frames
        for key, output in outputs.items():
            assert equal(output, alone[key](frames[key]))
            assert streams[key].distance == alone[key].distance
    for key in streams:
        assert streams[key].refreshes == alone[key].refreshes
        assert streams[key].shortcuts == alone[key].shortcuts
        assert streams[key].summary().audited == pytest.approx(alone[key].summary().audited) or policy == "audits"
    assert streams.batched


def test_refreshes_are_spread_over_the_interval(chain: nn.Module) -> None:
    streams = wrapped(chain, "1", "4").streams(8, refresh=4)
    due = []
    for _ in range(20):
        streams([torch.rand(1, 3, 8, 8)] * 8)
        due.append(sum(stream.distance == 0 for stream in streams.values()))
    assert due[0] == 8
    assert due[4:] == [2] * 16
    policy = streams[1].refresh
    assert isinstance(policy, Staggered)
    assert policy.policy.interval == policy.interval == 4


def test_the_middle_runs_on_the_rows_that_are_due(chain: nn.Module) -> None:
    model, sizes = wrapped(chain, "1", "4"), []
    middle = model.middle
    model.middle = lambda carry: sizes.append(carry.a[0].shape[0]) or middle(carry)
    streams = model.streams(3, refresh=3)
    streams([torch.rand(1, 3, 8, 8)] * 3)
    sizes.clear()
    for _ in range(6):
        streams([torch.rand(1, 3, 8, 8)] * 3)
    assert sizes == [1] * 6


class Norms(nn.Sequential):
    """Batch norm on the statistics of the batch: rows are not independent."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 4, 1), nn.ReLU()
        )


def test_a_teacher_that_mixes_its_rows_runs_them_one_by_one() -> None:
    model = wrapped(Norms(), "0", "2")
    streams, alone = model.streams(2, refresh=2, stagger=False), [model.stream(refresh=2) for _ in range(2)]
    frames = [torch.rand(1, 3, 8, 8), 3 + torch.rand(1, 3, 8, 8)]
    with pytest.warns(UserWarning, match="mixes the rows of a batch"):
        outputs = streams(frames)
    assert not streams.batched
    for _ in range(3):
        assert all(torch.equal(a, stream(f)) for a, stream, f in zip(outputs, alone, frames, strict=True))
        outputs = streams(frames)


class Styled(nn.Module):
    """A style that only the middle reads."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mid, self.dec, self.out = (nn.Conv2d(i, o, 1) for i, o in ((3, 4), (4, 4), (4, 4), (4, 3)))

    def forward(self, x: Tensor, style: Tensor, *, gain: float = 1.0) -> Tensor:
        return self.out(self.dec(self.mid(self.enc(x)) * style[:, :, None, None])) * gain


def test_every_video_has_conditions_and_numbers_of_its_own() -> None:
    teacher = Styled()
    model = shortcutv2v.wrap(teacher, "enc", "dec", example_inputs=(torch.rand(1, 3, 8, 8), torch.rand(1, 4)))
    streams, alone = model.streams(3, refresh=9, stagger=False), [model.stream(refresh=9) for _ in range(3)]
    styles = [torch.rand(1, 4) for _ in range(3)]
    for step in range(4):
        if step == 2:
            styles[1] = torch.rand(1, 4)
        given: list[Any] = [(torch.rand(1, 3, 8, 8), style) for style in styles]
        given[2] = (given[2], {"gain": 2.0})
        outputs = streams(given)
        for stream, output, frame in zip(alone, outputs, [*given[:2], given[2][0]], strict=True):
            kwargs = {"gain": 2.0} if frame is given[2][0] else {}
            assert equal(output, stream(*frame, **kwargs))
    assert [dict(stream.refreshes) for stream in streams.values()] == [
        {"first": 1}, {"first": 1, "condition": 1}, {"first": 1},
    ]  # fmt: skip


def test_a_row_that_is_not_finite_does_not_touch_the_others(chain: nn.Module) -> None:
    model = wrapped(chain, "1", "4")
    streams, alone = model.streams(2, refresh=4, stagger=False), model.stream(refresh=4)
    for step in range(6):
        frames = [torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)]
        if step == 2:
            frames[1][0, 0, 0, 0] = torch.nan
        outputs = streams(frames)
        assert equal(outputs[0], alone(frames[0]))
        if step != 2:
            assert outputs[1].isfinite().all()
    assert streams[1].refreshes["not finite"] == 1
    assert streams[0].refreshes["not finite"] == 0


def test_the_prediction_is_shown_at_refreshes_too(chain: nn.Module) -> None:
    model = wrapped(chain, "1", "4", show_shortcut=True)
    streams, alone = model.streams(2, refresh=2), [model.stream(refresh=1) for _ in range(2)]
    for stream, own in zip(streams.values(), alone, strict=True):
        own.refresh = stream.refresh
    for _ in range(6):
        frames = [torch.rand(1, 3, 8, 8) for _ in range(2)]
        for output, stream, frame in zip(streams(frames), alone, frames, strict=True):
            assert equal(output, stream(frame))


def test_frames_in_the_wrong_form(chain: nn.Module) -> None:
    streams = wrapped(chain, "1", "4").streams(2)
    with pytest.raises(InputError, match="1 frames for 2 streams: give None"):
        streams([torch.rand(1, 3, 8, 8)])
    with pytest.raises(InputError, match=r"there is no stream 7; the streams are \[0, 1\]"):
        streams({7: torch.rand(1, 3, 8, 8)})
    assert streams([None, None]) == [None, None]
    stream = streams.leave(0)
    assert stream(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)
    assert len(streams) == 1


def test_the_summaries_are_those_of_each_video(chain: nn.Module) -> None:
    streams = wrapped(chain, "1", "4").streams(2, refresh=3)
    for _ in range(7):
        streams([torch.rand(1, 3, 8, 8)] * 2)
    for stream in streams.values():
        summary = stream.summary()
        assert summary.frames == 7
        assert summary.speed is not None
