"""Algorithm 1: which frames get a full pass, and what is shown."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v.errors import InputError
from shortcutv2v.refresh import Every
from shortcutv2v.summary import Record


@pytest.fixture
def model(chain: nn.Module) -> shortcutv2v.ShortcutV2V:
    wrapped = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 8, 8),), max_interval=3)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.normal_(std=0.3)
    return wrapped


def video(frames: int = 7) -> torch.Tensor:
    return torch.rand(frames, 1, 3, 8, 8)


def test_follows_algorithm_1(model: shortcutv2v.ShortcutV2V) -> None:
    clip = video()
    with torch.no_grad():
        for t, frame in enumerate(clip):
            output = model(frame)
            if t % 3 == 0:
                expected, reference = model.reference(frame)
            else:
                expected = model.shortcut(reference, frame)
            assert torch.equal(output, expected)


def test_streams_do_not_disturb_each_other(model: shortcutv2v.ShortcutV2V) -> None:
    one, other = model.stream(), model.stream()
    first, second = video(), video()
    together = [(one(a), other(b)) for a, b in zip(first, second, strict=True)]
    alone = model.stream()
    for (output, _), frame in zip(together, first, strict=True):
        assert torch.equal(alone(frame), output)


def test_reset_begins_a_new_video(model: shortcutv2v.ShortcutV2V) -> None:
    clip = video(2)
    model(clip[0])
    model.reset()
    assert torch.equal(model(clip[1]), model.teacher(clip[1]))


def test_shows_the_blocks_output_at_reference_frames(model: shortcutv2v.ShortcutV2V) -> None:
    clip = video()
    stream = model.stream(show_shortcut=True)
    with torch.no_grad():
        assert torch.equal(stream(clip[0]), model.teacher(clip[0]))  # nothing earlier to predict from
        _, first = model.reference(clip[0])
        stream(clip[1])
        stream(clip[2])
        assert torch.equal(stream(clip[3]), model.shortcut(first, clip[3]))
        _, second = model.reference(clip[3])  # while the new reference is the teacher's
        assert torch.equal(stream(clip[4]), model.shortcut(second, clip[4]))


@pytest.mark.parametrize("goal", [{"quality": 60}, {"speed": 1.5}])
def test_what_a_goal_refuses_is_not_shown(model: shortcutv2v.ShortcutV2V, goal: dict[str, float]) -> None:
    stream = model.stream(show_shortcut=True, **goal)
    with torch.no_grad():
        for frame in torch.rand(12, 1, 3, 8, 8):
            output = stream(frame)
            assert stream.distance or torch.equal(output, model.teacher(frame))
    assert stream.refreshes.total() > 1


def test_a_new_size_refreshes(model: shortcutv2v.ShortcutV2V) -> None:
    stream = model.stream()
    stream(torch.rand(1, 3, 8, 8))
    small = torch.rand(1, 3, 6, 10)
    with torch.no_grad():
        assert torch.equal(stream(small), model.teacher(small))
    assert stream.distance == 0


def test_a_failed_call_leaves_the_stream_as_it_was(model: shortcutv2v.ShortcutV2V) -> None:
    clip = video(3)
    stream, other = model.stream(), model.stream()
    stream(clip[0])
    other(clip[0])
    with pytest.raises(InputError, match="expected input"):
        stream(torch.rand(1, 5, 8, 8))
    assert torch.equal(stream(clip[1]), other(clip[1]))


def test_any_policy(model: shortcutv2v.ShortcutV2V) -> None:
    seen = []

    def policy(look):
        seen.append((look.distance, torch.equal(look.reference.a[0], look.carry.a[0])))
        return look.distance == 2

    stream = model.stream(refresh=policy)
    distances = []
    for frame in video(5):
        stream(frame)
        distances.append(stream.distance)
    assert distances == [0, 1, 0, 1, 0]
    assert seen == [(1, False), (2, False), (1, False), (2, False)]


def test_keeps_no_graph(model: shortcutv2v.ShortcutV2V) -> None:
    assert not model(torch.rand(1, 3, 8, 8)).requires_grad
    assert not model(torch.rand(1, 3, 8, 8)).requires_grad


def test_a_stream_may_have_its_own_interval(model: shortcutv2v.ShortcutV2V) -> None:
    stream = model.stream(refresh=2)
    distances = []
    for frame in video(4):
        stream(frame)
        distances.append(stream.distance)
    assert distances == [0, 1, 0, 1]
    with pytest.raises(InputError, match="expected an interval such as 3"):
        model.stream(refresh="often")


def test_the_models_own_stream_follows_its_settings(model: shortcutv2v.ShortcutV2V) -> None:
    clip = video()
    model.refresh, model.show_shortcut = 2, True
    assert (model.refresh, model.max_interval) == (Every(2), 2)
    stream = model.stream(refresh=2, show_shortcut=True)
    assert all(torch.equal(model(frame), stream(frame)) for frame in clip)
    with pytest.raises(InputError, match="at least 1"):
        model.refresh = 0


@pytest.mark.parametrize("interval", [0, -1, 2.5])
def test_interval_must_be_a_positive_whole_number(interval: object) -> None:
    with pytest.raises(InputError, match="interval must be a whole number"):
        Every(interval)


def test_interval_one_is_the_teacher(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 8, 8),), max_interval=1)
    for frame in video(3):
        assert torch.equal(model(frame), chain(frame).detach())


def test_the_first_full_pass_prepares_and_is_no_measure_of_the_teacher() -> None:
    record = Record()
    record.frame(["first"], 5.6, 5.5)
    for _ in range(3):
        record.frame([""], 0.1, None)
    assert record.speed is None
    record.frame(["distance"], 0.5, 0.4)
    record.frame([""], 0.1, None)
    assert record.speed == pytest.approx(0.4 / ((3 * 0.1 + 0.5) / 4))
    assert record.times == (0.4, 0.1)
