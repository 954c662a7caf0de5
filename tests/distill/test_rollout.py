"""Teacher and blocks over several frames: what is shortcut, what is fed back, where gradients stop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import shortcutv2v
from shortcutv2v.distill import Rollout
from shortcutv2v.distill.cache.features import Features
from shortcutv2v.errors import InputError


class Recurrent(nn.Module):
    """Reads its last output, like vid2vid."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Conv2d(6, 4, 3, padding=1)
        self.mid = nn.Conv2d(4, 4, 3, padding=1)
        self.dec = nn.Conv2d(4, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 3, 3, padding=1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter *= 3  # what is fed back shall matter

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        f = self.dec(self.mid(self.enc(torch.cat((x, last), 1)).relu()).relu())
        picture: Tensor = self.out(f).sigmoid()
        return picture


class RecurrentAdapter(shortcutv2v.Adapter):
    def inputs(self, frame: Tensor, state: Tensor | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (frame, torch.zeros_like(frame) if state is None else state), {}

    def advance(self, state: Tensor | None, frame: Tensor, output: Tensor) -> Tensor:
        return output


class OpeningAdapter(RecurrentAdapter):
    """The first frame comes from elsewhere."""

    def opening(self, frame: Tensor, state: Tensor | None) -> Tensor | None:
        return 1 - frame if state is None else None


def made(adapter_class: type[shortcutv2v.Adapter] = RecurrentAdapter) -> tuple[shortcutv2v.ShortcutV2V, Any]:
    torch.manual_seed(0)
    adapter = adapter_class(Recurrent(), "enc", "dec")
    model = adapter.wrap(torch.rand(1, 3, 8, 8), channels=2)
    for parameter in model.blocks.parameters():  # a block that does something
        nn.init.normal_(parameter, std=0.3)
    return model, adapter


FRAMES = torch.rand(2, 7, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def looped(run: Any, adapter: Any) -> list[Tensor]:
    """A video loop, outputs fed back."""
    state, pictures = adapter.start(), []
    for frame in FRAMES.unbind(1):
        args, kwargs = adapter.inputs(frame, state)
        pictures.append(run(*args, **kwargs))
        state = adapter.advance(state, frame, pictures[-1])
    return pictures


@pytest.mark.parametrize("feedback", ["teacher", "own"])
def test_references_come_every_interval_and_targets_are_the_teachers_generation(feedback: str) -> None:
    model, adapter = made()
    steps = Rollout(model, adapter, feedback).shortcut_frames(FRAMES)
    expected = looped(adapter.teacher, adapter)
    assert len(steps) == 4
    for step, number, reference in zip(steps, (1, 2, 4, 5), (0, 0, 3, 3), strict=True):
        assert torch.equal(step.input, FRAMES[:, number])
        torch.testing.assert_close(step.target, expected[number])
        torch.testing.assert_close(step.reference_picture, expected[reference])


def test_with_own_feedback_the_pictures_are_those_of_the_stream() -> None:
    model, adapter = made()
    shown = looped(model.stream(), adapter)
    for step, number in zip(Rollout(model, adapter, "own").shortcut_frames(FRAMES), (1, 2, 4, 5), strict=True):
        torch.testing.assert_close(step.picture, shown[number])
    follow = Rollout(model, adapter, "teacher").shortcut_frames(FRAMES)
    assert not torch.allclose(follow[1].picture, shown[2], atol=1e-4)


@pytest.mark.parametrize(("truncate", "reaches"), [(None, True), (2, True), (1, False)])
def test_gradients_flow_back_through_as_many_frames_as_stated(truncate: int | None, reaches: bool) -> None:
    model, adapter = made()
    first, second, *_ = Rollout(model, adapter, "own", truncate).shortcut_frames(FRAMES)
    (gradient,) = torch.autograd.grad(second.picture.sum(), first.output, allow_unused=True)
    assert (gradient is not None) == reaches


def test_no_gradient_passes_a_reference() -> None:
    model, adapter = made()
    steps = Rollout(model, adapter, "own").shortcut_frames(FRAMES)
    (gradient,) = torch.autograd.grad(steps[2].picture.sum(), steps[1].output, allow_unused=True)
    assert gradient is None


def test_frames_that_the_adapter_opens_with_are_no_references() -> None:
    model, adapter = made(OpeningAdapter)
    for feedback in ("teacher", "own"):
        steps = Rollout(model, adapter, feedback).shortcut_frames(FRAMES)
        assert [i for i in range(7) for step in steps if torch.equal(step.input, FRAMES[:, i])] == [2, 3, 5, 6]


def test_the_teacher_gets_no_gradient_and_keeps_its_flags() -> None:
    model, adapter = made()
    model.teacher.mid.weight.requires_grad_(False)
    flags = [p.requires_grad for p in model.teacher.parameters()]
    steps = Rollout(model, adapter, "own").shortcut_frames(FRAMES)
    sum(step.picture.sum() for step in steps).backward()
    assert [p.requires_grad for p in model.teacher.parameters()] == flags
    assert all(p.grad is None for p in model.teacher.parameters())
    assert all(p.grad is not None for p in model.blocks.parameters())


def test_cached_features_give_the_same_steps(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(FRAMES[:, 0],), channels=2)
    rollout = Rollout(model, shortcutv2v.Adapter(chain, "1", "4"))
    features = [Features(carry := model.head(frame), model.middle(carry)) for frame in FRAMES.unbind(1)]
    for live, cached in zip(rollout.shortcut_frames(FRAMES), rollout.shortcut_frames_from(features), strict=True):
        for name in ("picture", "target", "reference"):
            one, other = (pytree.tree_leaves(getattr(step, name)) for step in (live, cached))
            torch.testing.assert_close(one, other)
        torch.testing.assert_close(live.reuse(), cached.reuse())


def test_what_cannot_be_is_refused() -> None:
    model, adapter = made()
    with pytest.raises(InputError, match="no shortcut frame"):
        Rollout(model, adapter).shortcut_frames(FRAMES[:, :1])
    with pytest.raises(InputError, match="unknown feedback 'mine': expected one of teacher, own"):
        Rollout(model, adapter, "mine")
    with pytest.raises(InputError, match="truncate must be at least 1"):
        Rollout(model, adapter, "own", truncate=0)
    with pytest.raises(InputError, match="needs frames"):
        Rollout(model, adapter, "own").shortcut_frames_from([])
