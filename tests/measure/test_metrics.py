"""Every metric on a case whose value is known, and against the library that it comes from."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.errors import InputError
from shortcutv2v.labels import LabelAdapter
from shortcutv2v.measure import Metric, Panel, Setting, measure
from shortcutv2v.measure.metrics import Unavailable, known, perceptual
from shortcutv2v.measure.metrics.temporal import warped


def video(count: int = 6, height: int = 40, width: int = 56, seed: int = 0) -> Tensor:
    """A smooth pattern that moves by one pixel a frame to the right, (T, 3, H, W)."""
    coarse = torch.rand(1, 3, 8, 20, generator=torch.Generator().manual_seed(seed))
    wide = nn.functional.interpolate(coarse, (height, width + count), mode="bicubic").clamp(0, 1)
    return torch.stack([wide[0, :, :, count - n : count - n + width] for n in range(count)])


def values(name: str, made: Tensor, teacher: Tensor, **setting: Any) -> tuple[list[float], float | None, str]:
    """All values of the frames, that of the clip, and the note."""
    panel = Panel([name], Setting(**setting))
    found = [panel.frame({"ours": m[None]}, t[None], t[None]) for m, t in zip(made, teacher, strict=True)]
    whole = panel.finish()
    assert not panel.left_out, panel.left_out
    frames = [each[name]["ours"] for each in found if "ours" in each.get(name, {})]
    return frames, whole.get(name, {}).get("ours"), panel.notes.get(name, "")


def missing(name: str, made: Tensor, teacher: Tensor, **setting: Any) -> str:
    panel = Panel([name], Setting(**setting))
    for m, t in zip(made, teacher, strict=True):
        panel.frame({"ours": m[None]}, t[None], t[None])
    panel.finish()
    return panel.left_out[name]


def test_psnr() -> None:
    grey = torch.full((1, 3, 8, 8), 0.5)
    assert values("psnr", grey, grey + 0.1)[0] == [pytest.approx(20.0, abs=1e-3)]
    assert values("psnr", grey, grey)[0] == [pytest.approx(100.0)]


def test_ssim_and_ms_ssim() -> None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference
    from torchmetrics.functional.image import structural_similarity_index_measure

    teacher = video(1, 176, 180)
    made = (teacher + 0.05 * torch.randn_like(teacher)).clamp(0, 1)
    assert values("ssim", teacher, teacher)[0] == [pytest.approx(1.0, abs=1e-4)]
    assert values("ms_ssim", teacher, teacher)[0] == [pytest.approx(1.0, abs=1e-4)]
    assert values("ms_ssim", made, teacher)[0] == [pytest.approx(float(reference(made, teacher, data_range=1.0)))]
    other = float(structural_similarity_index_measure(made, teacher, data_range=1.0, kernel_size=11, sigma=1.5))
    assert values("ssim", made, teacher)[0] == [pytest.approx(other, abs=0.012)]  # borders are treated in another way
    assert "176x176" in missing("ms_ssim", teacher[..., :175], teacher[..., :175])
    assert "6x6" in missing("ssim", teacher[..., :5], teacher[..., :5])


def test_lpips_needs_its_weights_and_equals_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lpips = pytest.importorskip("lpips")
    from torchvision.models import AlexNet_Weights, alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    perceptual._lpips.cache_clear()
    teacher = video(1, 64, 64)
    text = missing("lpips", teacher, teacher)
    file = tmp_path / "hub" / "checkpoints" / AlexNet_Weights.DEFAULT.url.rpartition("/")[2]
    assert file.name in text
    assert str(file.parent) in text
    file.parent.mkdir(parents=True)
    torch.save(alexnet(weights=None).state_dict(), file)  # random weights under the real name
    made = (teacher + 0.1 * torch.randn_like(teacher)).clamp(0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="alex", verbose=False).eval()
    with torch.no_grad():
        expected = float(network(2 * made - 1, 2 * teacher - 1))
    assert values("lpips", made, teacher)[0] == [pytest.approx(expected, rel=1e-4)]
    assert values("lpips", teacher, teacher)[0] == [pytest.approx(0.0, abs=1e-6)]
    perceptual._lpips.cache_clear()


def test_flip() -> None:
    flip = pytest.importorskip("flip_evaluator")
    black, white = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    assert values("flip", black, black)[0] == [pytest.approx(0.0, abs=1e-6)]
    assert values("flip", black, white)[0][0] > 0.9
    made, teacher = video(1, seed=1), video(1)
    arrays = [x[0].permute(1, 2, 0).contiguous().numpy() for x in (teacher, made)]
    assert values("flip", made, teacher)[0] == [pytest.approx(flip.evaluate(*arrays, "LDR")[1], rel=1e-5)]


@pytest.mark.filterwarnings("ignore")
def test_cvvdp() -> None:
    pycvvdp = pytest.importorskip("pycvvdp")
    teacher = video(8, 64, 64)
    assert values("cvvdp", teacher, teacher, rate=30.0)[1] == pytest.approx(10.0, abs=1e-3)
    made = (teacher + 0.1 * torch.randn_like(teacher)).clamp(0, 1)
    raw = [(x * 255).round().byte() for x in (made, teacher)]
    expected, _ = pycvvdp.cvvdp(display_name="standard_4k", quiet=True).predict(
        *raw, dim_order="FCHW", frames_per_second=30
    )
    frames, whole, note = values("cvvdp", made, teacher, rate=30.0)
    assert frames == []
    assert whole == pytest.approx(float(expected), abs=1e-3)
    assert whole < 9.9
    assert "standard_4k" in note


def test_vmaf_by_a_program_that_has_it() -> None:
    imageio = pytest.importorskip("imageio_ffmpeg")
    teacher = video(6, 64, 96)
    program = {"vmaf": imageio.get_ffmpeg_exe()}
    same = values("vmaf", teacher, teacher, files=program)[1]
    worse = values("vmaf", (teacher + 0.2 * torch.randn_like(teacher)).clamp(0, 1), teacher, files=program)[1]
    assert same is not None
    assert worse is not None
    assert same > 95 > 60 > worse


def test_vmaf_is_left_out_by_name_where_no_program_has_it(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho ' .. psnr VV->V  '\n")
    program.chmod(0o755)
    text = missing("vmaf", video(2), video(2), files={"vmaf": str(program)})
    assert text.startswith(f"{program} has no libvmaf filter")
    assert "--use vmaf=" in text
    assert "does not run" in missing("vmaf", video(2), video(2), files={"vmaf": str(tmp_path / "gone")})


def test_windows_have_a_value_each() -> None:
    class Brightness(shortcutv2v.measure.metrics.Windowed):
        name, title, length = "brightness_of_windows", "brightness", 4

        def window(self, made: Tensor, teacher: Tensor) -> float:
            assert made.dtype == torch.uint8
            return float(made.float().mean())

    try:
        clip = torch.arange(10).div(255).view(10, 1, 1, 1).expand(10, 3, 4, 4)
        frames, whole, _ = values("brightness_of_windows", clip, clip)
        assert frames == [1.5, 5.5]
        assert whole is None  # the two frames at the end are no window
        assert values("brightness_of_windows", clip[:3], clip[:3])[1] == 1.0
    finally:
        del Metric.known["brightness_of_windows"]


def test_flicker_is_the_change_of_the_error() -> None:
    teacher = video(4)
    assert values("flicker", teacher + 0.1, teacher)[0] == [pytest.approx(0.0, abs=1e-4)] * 3
    jumps = teacher + torch.tensor([0.0, 0.1, 0.0, 0.1]).view(4, 1, 1, 1)
    assert values("flicker", jumps, teacher)[0] == [pytest.approx(25.5, abs=1e-3)] * 3


def test_warping_error_follows_the_motion() -> None:
    pytest.importorskip("cv2")
    teacher = video(4)
    still = teacher[:1].expand(4, -1, -1, -1)
    moving, standing = values("warping", teacher, teacher)[0], values("warping", still, teacher)[0]
    assert len(moving) == 3
    assert all(m < 0.2 * s for m, s in zip(moving, standing, strict=True))
    # Where nothing moves, the error is the mean square of what changes, times 1000 and summed over the colours.
    blinks = still + torch.tensor([0.0, 0.1, 0.0, 0.1]).view(4, 1, 1, 1)
    assert values("warping", blinks, still)[0] == [pytest.approx(1000 * 3 * 0.01, rel=1e-3)] * 3
    panel = Panel(["warping"])
    for frame in teacher:
        found = panel.frame({"ours": frame[None]}, frame[None], frame[None], shortcut=False)
    assert found["warping"]["teacher"] == found["warping"]["ours"]


def test_warped_samples_where_the_motion_points() -> None:
    picture = torch.rand(1, 3, 5, 7)
    motion = torch.zeros(1, 2, 5, 7)
    assert torch.allclose(warped(picture, motion), picture, atol=1e-5)
    motion[:, 1] = 1
    assert torch.allclose(warped(picture, motion)[..., :-1, :], picture[..., 1:, :], atol=1e-5)


def labels_adapter() -> LabelAdapter:
    return LabelAdapter(nn.Conv2d(3, 3, 1), writes=3)


def test_segmentation_scores_of_a_teacher_that_writes_labels() -> None:
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

    adapter = labels_adapter()
    colours = adapter.writes.colours
    truth, found = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
    pictures = [colours[each].permute(2, 0, 1)[None] for each in (found, truth)]
    scores = {
        name: values(name, *pictures, adapter=adapter)[1] for name in ("miou", "class_accuracy", "pixel_accuracy")
    }
    # Class 0: 2 of 3 found, union 3; class 1: 1 of 1 found, union 2; class 2 occurs nowhere.
    assert scores["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["class_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["pixel_accuracy"] == pytest.approx(3 / 4)
    truth, found = torch.randint(0, 3, (2, 1, 12, 16)).unbind()
    pictures = [colours[each[0]].permute(2, 0, 1)[None] for each in (found, truth)]
    library = float(multiclass_jaccard_index(found, truth, 3))
    assert values("miou", *pictures, adapter=adapter)[1] == pytest.approx(library)
    library = float(multiclass_accuracy(found, truth, 3, average="macro"))
    assert values("class_accuracy", *pictures, adapter=adapter)[1] == pytest.approx(library)


SCRIPT = pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
"""torch writes these files no more, but reads those that papers have published."""


class Brightest(nn.Module):
    """A segmentation network: the label is the brightest colour."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@SCRIPT
def test_segmentation_by_a_network_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "brightest.pt"
    torch.jit.script(Brightest()).save(str(path))
    made = torch.rand(2, 3, 8, 8)
    files = {"miou": str(path)}
    assert values("pixel_accuracy", made, made, files=files)[1] == 1.0
    # The FCN score: a teacher that reads labels is compared with them, not with the teacher's picture.
    adapter = LabelAdapter(nn.Conv2d(3, 3, 1), reads=3)
    found = made.argmax(1)
    source = shortcutv2v.labels.pack_labels(found, torch.zeros_like(found))
    panel = Panel(["pixel_accuracy"], Setting(adapter=adapter, files=files))
    for m, s in zip(made, source, strict=True):
        panel.frame({"ours": m[None]}, torch.zeros_like(m)[None], s[None])
    assert panel.finish()["pixel_accuracy"]["ours"] == 1.0
    assert "FCN score" in panel.notes["pixel_accuracy"]
    assert "--use miou=" in missing("miou", made, made)
    (tmp_path / "bad.pt").write_text("no")
    assert "is no TorchScript file" in missing("miou", made, made, files={"miou": str(tmp_path / "bad.pt")})


class Means(nn.Module):
    """Features of pictures or windows: mean of each colour."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        found = x.flatten(2).mean(2)
        return found if return_features else found * 0


@SCRIPT
def test_frechet_distances(tmp_path: Path) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    path = tmp_path / "means.pt"
    torch.jit.script(Means()).save(str(path))
    teacher = torch.rand(40, 3, 6, 6)
    same, note = values("fid", teacher, teacher, files={"fid": str(path)})[1:]
    assert same == pytest.approx(0.0, abs=1e-3)
    assert note.startswith(f"features of {path}, 40 frames")
    # A shift by 1 of 255 of every feature moves the mean alone: the distance is the square of its length, 3.
    assert values("fid", teacher + 1 / 255, teacher, files={"fid": str(path)})[1] == pytest.approx(3.0, abs=1e-2)
    made = torch.rand(40, 3, 6, 6)

    class Plain(nn.Module):
        num_features = 3

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(2).mean(2)

    library = FrechetInceptionDistance(feature=Plain())
    library.update(made * 255, real=False)
    library.update(teacher * 255, real=True)
    expected = pytest.approx(float(library.compute()), rel=1e-3)
    assert values("fid", made, teacher, files={"fid": str(path)})[1] == expected
    windows = values("fvd", teacher + 1 / 255, teacher, files={"fvd": str(path)})
    assert windows[1] == pytest.approx(3.0, abs=1e-2)
    assert "2 windows of 16 frames; biased" in windows[2]
    assert "32 frames or more" in missing("fvd", teacher[:31], teacher[:31], files={"fvd": str(path)})


def test_names_are_checked() -> None:
    with pytest.raises(InputError, match="no metric 'psrn'.*psnr"):
        known(["psrn"])
    with pytest.raises(InputError, match="no metric 'other'"):
        Panel(["psnr"], Setting(files={"other": "x"}))
    with pytest.raises(InputError, match="a metric named 'psnr' already"):

        class Again(Metric):
            name = "psnr"


def test_a_metric_of_the_users_own_needs_one_class(chain: nn.Module) -> None:
    class Brightness(Metric):
        """Mean of the picture."""

        name, title, higher = "brightness", "brightness", True

        def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> float:
            return float(made.mean())

        def finish(self) -> float | None:
            raise Unavailable("it has no value of the clip")

    try:
        adapter = shortcutv2v.Adapter(chain, "1", "4")
        model = adapter.wrap(torch.rand(1, 3, 24, 24))
        clip = torch.randint(0, 256, (5, 3, 24, 24), dtype=torch.uint8)
        scores = measure(model, adapter, clip, ["psnr", "brightness"])
        assert scores.left_out == {"brightness": "it has no value of the clip"}
        spread = scores.spread("brightness", "ours")
        found = [s.values["brightness"]["ours"] for s in scores.frames if s.distance]
        assert spread is not None
        assert spread.mean == pytest.approx(sum(found) / len(found))
        assert spread.worst == min(found)
        assert found[[s.number for s in scores.at()].index(spread.frame)] == min(found)
    finally:
        del Metric.known["brightness"]


def test_everything_that_is_measured_is_plain_json(chain: nn.Module, tmp_path: Path) -> None:
    adapter = shortcutv2v.Adapter(chain, "1", "4")
    model = adapter.wrap(torch.rand(1, 3, 24, 24))
    clip = torch.zeros(7, 3, 24, 24, dtype=torch.uint8)  # equal pictures, whose PSNR is infinite elsewhere
    scores = measure(model, adapter, clip, ["psnr", "ssim", "flicker", "fvd"])
    plain = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert plain["metrics"]["psnr"]["methods"]["ours"]["mean"] == pytest.approx(100.0)
    assert plain["metrics"]["flicker"]["better"] == "lower"
    assert "fvd" in plain["left_out"]
    assert plain["shortcuts"] == 4
    assert [f["reason"] for f in plain["frames"] if not f["distance"]] == ["first", "distance", "distance"]
    scores.write_csv(tmp_path / "frames.csv", start=10, times=[n / 25 for n in range(7)])
    lines = (tmp_path / "frames.csv").read_text().splitlines()
    assert lines[0].startswith("frame,seconds,distance,reason,")
    assert lines[1].startswith("10,0.0,0,first,")
    assert len(lines) == 8
    row = dict(zip(lines[0].split(","), lines[2].split(","), strict=True))
    assert float(row["psnr.ours"]) == plain["frames"][1]["values"]["psnr"]["ours"]


def test_percentiles_are_taken_from_the_bad_side(chain: nn.Module) -> None:
    from shortcutv2v.measure import FrameScore, Scores

    frames = [
        FrameScore(n, 1, {"psnr": {"ours": 30.0 + n}, "flicker": {"ours": float(n)}}, 0.1, 0.1) for n in range(101)
    ]
    psnr, flicker = (Scores(frames).spread(name, "ours") for name in ("psnr", "flicker"))
    assert psnr is not None
    assert flicker is not None
    assert (psnr.low, psnr.worst, psnr.frame) == (35.0, 30.0, 0)
    assert (flicker.low, flicker.worst, flicker.frame) == (95.0, 100.0, 100)
    assert math.isclose(psnr.mean, 80.0)
