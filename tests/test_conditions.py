"""Inputs that only the middle reads: a change refreshes at once, whatever the policy says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.lookahead import LookAhead


class Styled(nn.Module):
    """The style reaches the middle alone, through a layer of its own or as it is; a strength may be a number."""

    def __init__(self, through_a_layer: bool = True) -> None:
        super().__init__()
        self.enc = nn.Conv2d(3, 4, 3, padding=1)
        self.style = nn.Linear(5, 4) if through_a_layer else nn.Identity()
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.dec = nn.Conv2d(4, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor, style: Tensor, *, noise: Tensor | None = None) -> Tensor:
        deep = self.body(self.enc(x)) * self.style(style)[..., :4, None, None]
        if noise is not None:
            deep = deep + noise
        return self.out(self.dec(deep.relu())) + x


@pytest.fixture(params=["fx", "export", "hooks"])
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def wrap(strategy: str, layer: bool = True) -> shortcutv2v.ShortcutV2V:
    torch.manual_seed(0)
    inputs = (torch.rand(1, 3, 8, 8), torch.rand(1, 5))
    return shortcutv2v.wrap(Styled(layer).eval(), "enc", "dec", example_inputs=inputs, capture=strategy)


@pytest.mark.parametrize("layer", [True, False])
@torch.no_grad()
def test_a_new_style_refreshes_at_once(strategy: str, layer: bool) -> None:
    model = wrap(strategy, layer)
    stream, styles = model.stream(refresh=9), torch.randn(3, 1, 5)
    for t, frame in enumerate(torch.rand(9, 1, 3, 8, 8)):
        style = styles[t // 3]
        output = stream(frame, style)
        if t % 3 == 0:
            assert torch.equal(output, model.teacher(frame, style))
    assert stream.refreshes == {"first": 1, "condition": 2}
    assert stream.shortcuts == 6


@torch.no_grad()
def test_a_style_that_is_changed_in_place_refreshes(strategy: str) -> None:
    model, style = wrap(strategy), torch.randn(1, 5)
    stream = model.stream(refresh=9)
    stream(torch.rand(1, 3, 8, 8), style)
    style.neg_()
    stream(torch.rand(1, 3, 8, 8), style)
    assert stream.refreshes["condition"] == 1


@torch.no_grad()
def test_looking_ahead_stops_at_a_new_style(strategy: str) -> None:
    model, styles = wrap(strategy), torch.randn(2, 1, 5)
    frames = torch.rand(12, 1, 3, 8, 8)
    stream = model.stream(refresh=4)
    outputs = LookAhead(stream).play(((frame, styles[int(t >= 6)]), {}) for t, frame in enumerate(frames))
    distances = [(output, stream.distance) for output in outputs]
    references = {t: model.reference(frames[t], styles[int(t >= 6)])[1] for t, (_, d) in enumerate(distances) if d == 0}
    for t, (output, distance) in enumerate(distances):
        if distance:
            near = [s for s in (t - distance, t + distance) if s in references and (s >= 6) == (t >= 6)]
            assert any(torch.equal(output, model.shortcut(references[s], frames[t], styles[int(t >= 6)])) for s in near)
    assert distances[6][1] == 0


@torch.no_grad()
def test_a_frame_is_no_condition(strategy: str) -> None:
    """The picture itself reaches the tail by a skip; what depends on it changes with every frame."""
    model = wrap(strategy)
    assert len(model.conditions(model.head(torch.rand(1, 3, 8, 8), torch.rand(1, 5)))) == 1
