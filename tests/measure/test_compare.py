"""Teacher and wrapped model side by side."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v.errors import InputError
from shortcutv2v.measure import Interpolator, Scores, compare, macs, measure, psnr
from shortcutv2v.measure.interpolation import moved
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


def test_outputs_are_blended_between_the_refreshes(chain: nn.Module) -> None:
    adapter = shortcutv2v.Adapter(chain, "1", "4")
    model = adapter.wrap(frames()[:1] / 255, max_interval=3)
    found = list(compare(model, adapter, frames(8)))
    assert [p.score.distance for p in found] == [0, 1, 2, 0, 1, 2, 0, 1]
    for pictures, share in ((found[1], 1 / 3), (found[2], 2 / 3)):
        blend = (1 - share) * found[0].teacher + share * found[3].teacher
        assert pictures.score.psnr["blend"] == pytest.approx(psnr(blend, pictures.teacher), rel=1e-5)
    last = found[7].score.psnr
    assert last["blend"] == last["repeat"]  # no later output is known
    assert [p.score.reason for p in found] == ["first", None, None, "distance", None, None, "distance", None]


@pytest.mark.parametrize("variant", ["flow", "paper"])
def test_outputs_are_moved_along_the_motion_of_the_block(chain: nn.Module, variant: str) -> None:
    adapter = shortcutv2v.Adapter(chain, "1", "4")
    model = adapter.wrap(frames()[:1] / 255, max_interval=2, variant=variant, channels=4)
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    clip = frames(3)
    found = list(compare(model, adapter, clip))
    with torch.no_grad():
        ends = []
        for anchor in (0, 2):
            _, reference = model.reference(clip[anchor : anchor + 1] / 255)
            prediction = model.analyse(reference, model.head(clip[1:2] / 255))[0]
            ends.append(moved(found[anchor].teacher[None], prediction, tuple(clip.shape[-2:])))
    wanted = psnr((ends[0] + ends[1])[0] / 2, found[1].teacher)
    assert found[1].score.psnr["motion"] == pytest.approx(wanted, rel=1e-4)
    assert wanted != pytest.approx(found[1].score.psnr["blend"], rel=1e-4)


class Between(nn.Module):
    def forward(self, before: torch.Tensor, after: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        return before + share * (after - before)


class Halves(Between):
    def forward(self, before: torch.Tensor, after: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        return before[:, :, ::2]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_an_interpolation_network_of_the_user_is_one_more_baseline(chain: nn.Module, tmp_path: Path) -> None:
    adapter = shortcutv2v.Adapter(chain, "1", "4")
    model = adapter.wrap(frames()[:1] / 255, max_interval=3)
    for network in (Between(), Halves()):
        torch.jit.save(torch.jit.script(network), tmp_path / f"{type(network).__name__}.pt")
    found = list(compare(model, adapter, frames(8), interpolate=Interpolator(tmp_path / "Between.pt")))
    for pictures in found:
        if not pictures.score.distance:
            assert not pictures.score.psnr
            continue
        assert pictures.score.psnr["rival"] == pytest.approx(pictures.score.psnr["blend"], rel=1e-4)
    scores = Scores([pictures.score for pictures in found])
    assert scores.methods["rival"] == "outputs interpolated"
    assert "rival" not in Scores([]).methods
    with pytest.raises(InputError, match="it returned"):
        list(compare(model, adapter, frames(8), interpolate=Interpolator(tmp_path / "Halves.pt")))
    (tmp_path / "no.pt").write_bytes(b"no")
    with pytest.raises(InputError, match="no TorchScript file"):
        Interpolator(tmp_path / "no.pt")


@pytest.mark.parametrize("variant", ["flow", "paper"])
def test_looking_ahead_is_what_translate_does(chain: nn.Module, variant: str) -> None:
    adapter = shortcutv2v.Adapter(chain, "1", "4")
    model = adapter.wrap(frames()[:1] / 255, variant=variant, channels=4)
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    found = list(compare(model, adapter, frames(9), lookahead=True, analyse=True, refresh=4))
    assert [p.score.distance for p in found] == [0, 1, 2, 3, 3, 2, 1, 0, 1]
    translated = Translator(adapter, model, lookahead=True, refresh=4).play(frames(9))
    for pictures, picture in zip(found, translated, strict=True):
        assert torch.equal(to_uint8(pictures.ours[None]), picture)
        assert bool(pictures.predictions) == bool(pictures.score.distance)
        assert pictures.score.seconds > 0
    tail = nn.Sequential(*list(chain)[5:])
    for pictures in found:  # the prediction that is shown is the one that made the picture
        for prediction in pictures.predictions:
            with torch.no_grad():
                made = tail(prediction.f_hat)[0].clamp(0, 1)
            assert torch.allclose(made, pictures.ours, atol=1e-5)


def test_a_clip_without_shortcut_frames_has_times_all_the_same(chain: nn.Module) -> None:
    adapter = shortcutv2v.Adapter(chain, "1", "4")
    model = adapter.wrap(frames()[:1] / 255)
    scores = measure(model, adapter, frames(3), ["psnr", "flicker"], refresh=1)
    assert scores.spread("psnr", "ours") is None
    assert scores.to_dict()["seconds"]["shortcut"] is None
    assert scores.speed > 0
    flicker = scores.spread("flicker", "ours")
    assert flicker is not None
    assert flicker.mean == 0
