"""Teacher and wrapped model side by side."""

from __future__ import annotations

from statistics import median

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v.errors import InputError
from shortcutv2v.measure import Scores, compare, macs, psnr
from shortcutv2v.translate import Translator, to_uint8


def frames(count: int = 7) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8)


def test_baselines_are_what_they_say(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 16, 16),), max_interval=3)
    adapter = shortcutv2v.Adapter(chain, "1", "4")
    found = list(compare(model, adapter, frames()))
    assert [p.score.distance for p in found] == [0, 1, 2, 0, 1, 2, 0]
    tail = nn.Sequential(*list(chain)[5:])
    middle = nn.Sequential(*list(chain)[:5])
    x = frames().float() / 255
    with torch.no_grad():
        for number, pictures in enumerate(found):
            target = chain(x[number : number + 1]).clamp(0, 1)
            assert torch.equal(pictures.teacher, target[0])
            if not pictures.score.distance:
                assert torch.equal(pictures.ours, pictures.teacher)
                assert not pictures.score.psnr
                continue
            reference = x[number - pictures.score.distance][None]
            reuse = tail(middle(reference)).clamp(0, 1)
            assert pictures.score.psnr["reuse"] == pytest.approx(psnr(reuse, target))
            # An untrained block is plain reuse; in a plain chain, reuse repeats the reference's output.
            assert pictures.score.psnr["ours"] == pictures.score.psnr["reuse"]
            assert pictures.score.psnr["repeat"] == pytest.approx(pictures.score.psnr["reuse"])


def test_summary(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 16, 16),), max_interval=3)
    scores = Scores([p.score for p in compare(model, shortcutv2v.Adapter(chain, "1", "4"), frames())])
    one, two = scores.psnr("ours", 1), scores.psnr("ours", 2)
    assert scores.psnr("ours") == pytest.approx((one + two) / 2)
    assert scores.worst_psnr("ours") == min(s.psnr["ours"] for s in scores.at())
    assert scores.average_seconds > 0
    with pytest.raises(InputError, match="distance 3"):
        scores.psnr("ours", 3)


class Opens(shortcutv2v.Adapter):
    """The first two frames of a video come from somewhere else; every output is fed back in."""

    def start(self) -> tuple[int, torch.Tensor | None]:
        return 0, None

    def opening(self, frame: torch.Tensor, state: tuple[int, torch.Tensor | None]) -> torch.Tensor | None:
        return frame / 2 if state[0] < 2 else None

    def inputs(self, frame: torch.Tensor, state: tuple[int, torch.Tensor | None]):
        return ((frame + state[1]) / 2 if state[1] is not None else frame,), {}

    def advance(self, state: tuple[int, torch.Tensor | None], frame: torch.Tensor, output: torch.Tensor):
        return state[0] + 1, output


def test_opens_as_translation_does(chain: nn.Module) -> None:
    adapter = Opens(chain, "1", "4")
    model = adapter.wrap(frames()[:1] / 255)
    found = list(compare(model, adapter, frames()))
    assert [p.score.opening for p in found] == [True, True, *[False] * 5]
    assert [p.score.distance for p in found] == [0, 0, 0, 1, 2, 0, 1]
    both = {"ours": Translator(adapter, model), "teacher": Translator(adapter)}
    for pictures, frame in zip(found, frames(), strict=True):
        for name, translate in both.items():
            assert torch.equal(to_uint8(getattr(pictures, name)[None]), translate(frame))
    scores = Scores([p.score for p in found])
    timed = [p.score for p in found[2:]]
    assert scores.teacher_seconds == median(s.teacher_seconds for s in timed)
    assert scores.average_seconds == Scores(timed).average_seconds
    with pytest.raises(InputError, match="longer than the adapter's opening"):
        _ = Scores([p.score for p in found[:2]]).teacher_seconds


def test_macs_add_up(chain: nn.Module) -> None:
    x = torch.rand(1, 3, 16, 16)
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(x,), channels=2)
    found = macs(model, x)
    pixels = 16 * 16 * 9
    assert found.head == (3 * 6 + 6 * 6) * pixels
    assert found.middle == 3 * 6 * 6 * pixels
    assert found.tail == 6 * 3 * pixels
    assert found.teacher == found.head + found.middle + found.tail
    assert found.shortcut == found.head + found.block + found.tail
    assert found.block > 0
    assert found.amortised(3) == (found.refresh + 2 * found.shortcut) / 3
