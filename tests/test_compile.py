"""Compiled passes give the eager results; state and copies stay outside."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v.errors import InputError


def video(size: int = 8) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(5, 1, 3, size, size)


def wrapped(teacher: nn.Module, **options: object) -> shortcutv2v.ShortcutV2V:
    model = shortcutv2v.wrap(teacher, "1", "4", example_inputs=(video()[0],), **options).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@pytest.mark.parametrize("capture", ["fx", "export", "hooks"])
def test_compiled_streams_equal_eager_ones(chain: nn.Module, capture: str) -> None:
    eager, compiled = wrapped(chain, capture=capture), wrapped(chain, capture=capture)
    runs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        runs.append(graph)
        return graph.forward

    compiled.compile(backend=backend)
    for clip in (video(), video(6)):  # the second size is captured after compile()
        for frame in clip:
            torch.testing.assert_close(compiled(frame), eager(frame))
        eager.reset()
        compiled.reset()
    assert runs


def test_copies_are_not_compiled_and_work(chain: nn.Module) -> None:
    model = wrapped(chain)
    model.compile(backend="eager")
    first = model(video()[0])
    twin = copy.deepcopy(model)
    twin.reset()
    assert not any("predict" in vars(block) for block in twin.blocks)
    assert torch.equal(twin(video()[0]), first)


def test_only_named_options(chain: nn.Module) -> None:
    with pytest.raises(InputError, match="named options only"):
        wrapped(chain).compile(True)


@pytest.mark.slow
def test_compiled_with_inductor(chain: nn.Module) -> None:
    eager, compiled = wrapped(chain), wrapped(chain)
    compiled.compile()
    for frame in video():
        torch.testing.assert_close(compiled(frame), eager(frame), rtol=1e-4, atol=1e-5)
