"""Every tensor is made on the GPU: blocks, operators, streams, translation and training steps, without any GPU.

Gradients are left out: autograd needs CUDA's streams. On a GPU, no gradient runs code of this package (`rows` is for
CPUs), and `benchmarks/gpu.py` compares them there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from examples.real_esrgan.adapter import RealESRGANAdapter
from examples.real_esrgan.teacher import build_teacher as build_real_esrgan
from examples.unsup.adapter import build_adapter as build_unsup
from examples.vid2vid.adapter import build_adapter as build_vid2vid
from tests.conftest import TEACHERS, Chain
from torch import Tensor
from torch.utils import _pytree as pytree

import shortcutv2v
from shortcutv2v import Adapter, Look, ops
from shortcutv2v.blocks import ShortcutBlock
from shortcutv2v.distill import Distiller, LossWeights
from shortcutv2v.distill.cache.features import collate, features_of
from shortcutv2v.labels import LabelMaps, Palette, distinct_colours
from shortcutv2v.measure import compare
from shortcutv2v.measure.metrics import Panel
from shortcutv2v.translate import Translator
from shortcutv2v.windows import Locality, Windows

SIZE = (18, 22)


def devices_of(tree: object) -> set[torch.device]:
    return {leaf.device for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)}


def wrapped(gpu: torch.device, **options: object) -> shortcutv2v.ShortcutV2V:
    frames = torch.rand(3, 3, *SIZE, device=gpu)
    return shortcutv2v.wrap(Chain().to(gpu).eval(), "1", "4", example_inputs=(frames,), **options).eval()


@pytest.mark.parametrize("make", [torch.rand, torch.arange], ids=["values", "index"])
def test_a_tensor_on_another_device_shows(gpu: torch.device, make: Callable[[int], Tensor]) -> None:
    there = torch.rand(4, device=gpu)
    with pytest.raises(RuntimeError, match="device"):
        there + make(4)


CALLS: dict[str, Callable[..., Tensor]] = {
    "adabd": lambda f, at, weight, **how: ops.adabd(
        f, f, at.repeat(1, 9, 1, 1), at[:, :1].repeat(1, 9, 1, 1), weight, **how
    ),
    "deform": lambda f, at, weight, **how: ops.deform(f, at.repeat(1, 9, 1, 1), weight, **how),
    "align": ops.align,
    "warp": lambda f, at, weight, **how: ops.warp(f, at[..., 1:-1, 1:-1], border=1, **how),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("implementation", [*ops.implementations(), "grid", None])
@pytest.mark.parametrize("name", CALLS)
def test_operators(gpu: torch.device, name: str, implementation: str | None, dtype: torch.dtype) -> None:
    f, at = torch.rand(2, 5, 7, 9, device=gpu, dtype=dtype), torch.rand(2, 2, 7, 9, device=gpu)
    out = CALLS[name](f, at, torch.rand(4, 5, 3, 3, device=gpu, dtype=dtype), implementation=implementation)
    assert (out.device, out.dtype) == (gpu, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", ShortcutBlock.variants)
def test_blocks(gpu: torch.device, variant: str, training: bool, dtype: torch.dtype) -> None:
    block = ShortcutBlock(5, 6, 4, variant=variant).to(gpu, dtype).train(training)
    f_ref, a_ref, a_t = (torch.rand(2, c, 9, 11, device=gpu, dtype=dtype) for c in (6, 5, 5))
    state = block.encode_reference(f_ref, a_ref)
    assert devices_of((state, block.predict(state, a_t), block.analyse(state, a_t))) == {gpu}
    assert block(f_ref, a_ref, a_t).dtype == dtype


def test_a_side_stream_gets_operators_that_follow_it(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: "another stream")
    called = []
    monkeypatch.setattr("shortcutv2v.ops.plain.blend", lambda f, *_: called.append(f) or f)
    f = torch.rand(1, 2, 3, 4, device=gpu)
    ops.deform(f, torch.rand(1, 18, 3, 4, device=gpu), torch.rand(2, 2, 3, 3, device=gpu))
    assert called


def second_row(look: Look) -> bool:
    """Refresh the row in the middle at every other frame, so that a batch refreshes in part."""
    return look.row == 1 and look.distance == 2


@pytest.mark.parametrize("show_shortcut", [False, True])
@pytest.mark.parametrize("variant", ShortcutBlock.variants)
def test_streams_refresh_in_full_and_in_part(gpu: torch.device, variant: str, show_shortcut: bool) -> None:
    stream = wrapped(gpu, variant=variant, show_shortcut=show_shortcut).stream(refresh=second_row)
    for _ in range(4):
        assert devices_of(stream(torch.rand(3, 3, *SIZE, device=gpu))) == {gpu}
    assert stream.refreshes == {"first": 3, "policy": 1, "distance": 2}
    assert devices_of(stream.reference) == {gpu}
    stream(torch.rand(3, 3, 16, 16, device=gpu))
    assert stream.refreshes["size"] == 3


@pytest.mark.parametrize("goal", [{"quality": 30.0}, {"speed": 1.5}, {"quality": 30.0, "guarantee": 2}], ids=str)
def test_streams_with_a_goal(gpu: torch.device, goal: dict[str, float]) -> None:
    stream = wrapped(gpu).stream(**goal)
    for _ in range(12):
        assert devices_of(stream(torch.rand(1, 3, *SIZE, device=gpu))) == {gpu}
    assert stream.shortcuts or stream.record.audits


def test_windows(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Locality(1, (0.0,), (0.0,), 1e-6)  # as a probe of real values would find
    monkeypatch.setattr("shortcutv2v.windows.stream.probe", lambda *_: exact)
    for name in ("pay", "measured", "note_windows"):  # so small a teacher is faster than looking for windows
        monkeypatch.setattr(f"shortcutv2v.windows.times.Times.{name}", lambda *_, **__: True)
    stream = wrapped(gpu).stream(windows=Windows(size=16, halo=4, rolling=1.0))
    for _ in range(3):
        assert devices_of(stream(torch.rand(1, 3, 32, 40, device=gpu))) == {gpu}
    assert stream.counts["refreshed"]


@pytest.mark.parametrize("capture", ["fx", "export"])  # "hooks" finds by values what depends on what
@pytest.mark.parametrize("name", TEACHERS)
def test_teachers_of_every_kind(gpu: torch.device, name: str, capture: str) -> None:
    build, enc_layer, dec_layer = TEACHERS[name]
    frame = torch.rand(2, 3, 16, 16, device=gpu)
    model = shortcutv2v.wrap(build().to(gpu).eval(), enc_layer, dec_layer, example_inputs=(frame,), capture=capture)
    for _ in range(4):
        assert devices_of(model(frame)) == {gpu}


def bundled(name: str) -> Adapter:
    """An example's adapter around its network, untrained."""
    if name == "real_esrgan":
        return RealESRGANAdapter(
            build_real_esrgan({"arch": "compact", "scale": 2, "convs": 8, "width": 4}).eval(), "low"
        )
    if name == "unsup":
        return build_unsup(random=True, ngf=4)
    return build_vid2vid(random=True, input_nc=12, prev_output_nc=6, ngf=2, n_blocks=9)


@pytest.mark.filterwarnings("ignore")  # of untrained networks
@pytest.mark.parametrize("lookahead", [False, True], ids=["causal", "lookahead"])
@pytest.mark.parametrize("name", ["real_esrgan", "unsup", "vid2vid"])
def test_translation(gpu: torch.device, name: str, lookahead: bool) -> None:
    adapter = bundled(name)
    adapter.teacher.to(gpu)
    model = adapter.wrap(torch.rand(1, 3, 32, 32, device=gpu), max_interval=3)
    clip = [torch.zeros(3, 32, 32, dtype=torch.uint8) for _ in range(8)]
    translate = Translator(adapter, model, lookahead=lookahead)
    shown = list(translate.play(clip))
    assert len(shown) == 8
    assert devices_of(shown) == {torch.device("cpu")}
    assert translate.stream is not None
    assert translate.stream.shortcuts >= 4


@pytest.mark.parametrize("variant", ["paper", "flow"])
def test_a_training_step(gpu: torch.device, variant: str) -> None:
    distiller = Distiller(wrapped(gpu, variant=variant).train())
    batch = torch.rand(2, 3, 3, *SIZE, device=gpu)
    frames = distiller.shortcut_frames(batch)
    assert devices_of([distiller.losses(frame) for frame in frames]) == {gpu}
    loss, logged = distiller.objective(batch)
    assert devices_of((loss, logged)) == {gpu}


def test_adversarial_training(gpu: torch.device) -> None:
    weights = LossWeights(perceptual=0.0, gan=1.0, temporal_gan=1.0)
    distiller = Distiller(wrapped(gpu).train(), weights=weights).to(gpu)
    frames = distiller.shortcut_frames(torch.rand(1, 3, 3, 32, 32, device=gpu))
    found = [(distiller.losses(frame), distiller.discriminator_losses(frame)) for frame in frames]
    assert devices_of(found) == {gpu}


def test_training_on_cached_features(gpu: torch.device) -> None:
    model = wrapped(gpu).train()
    clip = torch.zeros(4, 1, 3, *SIZE, dtype=torch.uint8)
    with torch.no_grad():
        stored = [features.to("cpu") for _, features in features_of(model, Adapter.of(model), clip)]
    distiller = Distiller(model)
    (frame,) = distiller.shortcut_frames([features.to(gpu) for features in collate([stored[:2], stored[2:]])])
    assert devices_of(distiller.losses(frame)) == {gpu}


def test_measuring(gpu: torch.device) -> None:
    model = wrapped(gpu)
    clip = torch.zeros(5, 3, 176, 180, dtype=torch.uint8)
    panel = Panel(["psnr", "ssim", "ms_ssim", "flicker"])
    pictures = list(compare(model, Adapter.of(model), clip, panel=panel, refresh=3, analyse=True))
    assert [each.score.distance for each in pictures] == [0, 1, 2, 0, 1]


def test_a_calibration(gpu: torch.device) -> None:
    model = wrapped(gpu)
    model.calibrate(torch.zeros(12, 3, *SIZE, dtype=torch.uint8))
    assert model.calibration is not None


def test_label_maps(gpu: torch.device) -> None:
    maps = LabelMaps(3)(torch.zeros(1, 3, *SIZE, device=gpu))
    assert devices_of((maps, Palette(distinct_colours(4))(maps))) == {gpu}
