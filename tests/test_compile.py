"""Compiled passes give the eager results; state and copies stay outside."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v.errors import InputError
from shortcutv2v.lookahead import LookAhead


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


class Replays:
    """A backend that treats results as CUDA graphs do: every call of a program writes into the same memory, and what
    an earlier step left is lost when the next one begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.memory: list[torch.Tensor] = []
        self.steps = 0
        monkeypatch.setattr("torch.compiler.cudagraph_mark_step_begin", self.begin)

    def begin(self) -> None:
        self.steps += 1
        with torch.no_grad():
            for held in self.memory:
                held.fill_(float("nan"))

    def __call__(self, graph: torch.fx.GraphModule, _: object, **options: object) -> object:
        assert options == {"mode": "reduce-overhead"}
        held: list[torch.Tensor] = []

        def run(*args: object) -> tuple[torch.Tensor, ...]:
            results = graph(*args)
            if not held:
                held.extend(torch.empty_like(result) for result in results)
                self.memory.extend(held)
            return tuple(place.copy_(result) for place, result in zip(held, results, strict=True))

        return run


@pytest.mark.parametrize("show_shortcut", [False, True])
@pytest.mark.parametrize("variant", ["paper", "flow"])
def test_what_is_kept_survives_replays(
    chain: nn.Module, monkeypatch: pytest.MonkeyPatch, variant: str, show_shortcut: bool
) -> None:
    eager, compiled = (wrapped(chain, variant=variant, show_shortcut=show_shortcut) for _ in range(2))
    replays = Replays(monkeypatch)
    compiled.compile(backend=replays, mode="reduce-overhead")
    wanted = [eager(frame) for frame in video()]
    shown = [compiled(frame) for frame in video()]  # all looked at only now, when the last replay is over
    torch.testing.assert_close(shown, wanted)
    assert replays.steps == len(shown)
    assert replays.memory


def test_a_batch_that_refreshes_in_part_survives_replays(chain: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head runs twice on such a frame."""
    eager, compiled = wrapped(chain), wrapped(chain)
    compiled.compile(backend=Replays(monkeypatch), mode="reduce-overhead", dynamic=False)
    clip, streams = torch.rand(5, 3, 3, 8, 8), [each.stream(refresh=second_row) for each in (eager, compiled)]
    for frame in clip:
        torch.testing.assert_close(streams[1](frame), streams[0](frame))
    assert streams[1].refreshes == {"first": 3, "policy": 2, "distance": 2}


def second_row(look: shortcutv2v.Look) -> bool:
    return look.row == 1 and look.distance == 2


def test_looking_ahead_survives_replays(chain: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    eager, compiled = wrapped(chain), wrapped(chain)
    compiled.compile(backend=Replays(monkeypatch), mode="reduce-overhead")
    wanted, shown = (
        list(LookAhead(each.stream(refresh=2)).play(((f,), {}) for f in video())) for each in (eager, compiled)
    )
    torch.testing.assert_close(shown, wanted)


def test_passes_with_replays_are_pure(chain: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    eager, compiled = wrapped(chain), wrapped(chain)
    compiled.compile(backend=Replays(monkeypatch), mode="reduce-overhead")
    first, second, third = video()[:3]
    with torch.no_grad():
        _, one = compiled.reference(first)
        _, two = compiled.reference(second)
        for reference, frame in ((one, first), (two, second)):
            got = compiled.shortcut(reference, third)
            torch.testing.assert_close(got, eager.shortcut(eager.reference(frame)[1], third))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"mode": "reduce-overhead"}], ids=str)
def test_compiled_with_inductor(chain: nn.Module, options: dict[str, str]) -> None:
    eager, compiled = wrapped(chain), wrapped(chain)
    compiled.compile(**options)
    for frame in video():
        torch.testing.assert_close(compiled(frame), eager(frame), rtol=1e-4, atol=1e-5)
