"""`fit` and the data behind it: which samples a step sees, and what the options change."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import Adapter, Carry
from shortcutv2v.distill import (
    Adversary,
    Distiller,
    FeatureCache,
    LossWeights,
    Pairs,
    Sequences,
    fit,
    pace,
)
from shortcutv2v.distill.cache.features import Features
from shortcutv2v.distill.cache.samples import CachedFrames
from shortcutv2v.distill.datamodule import ClipData, _From
from shortcutv2v.distill.plan import Batches, Plan
from shortcutv2v.distill.progress import quiet_lightning
from shortcutv2v.distill.settings import weights_of
from shortcutv2v.errors import InputError, NonFiniteLossError


def clip(frames: int = 9) -> Tensor:
    return torch.randint(0, 256, (frames, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def model_of(chain: nn.Module) -> shortcutv2v.ShortcutV2V:
    torch.manual_seed(1)
    return shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 12, 16),), channels=4)


class Fed(Adapter):
    """The teacher sees the mean of the frame and its last picture; the first frame opens the video."""

    def opening(self, frame: Tensor, state: Any) -> Any:
        return frame if state is None else None

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (frame if state is None else (frame + state) / 2,), {}

    def advance(self, state: Any, frame: Tensor, output: Any) -> Any:
        return output


def run(chain: nn.Module, *args: Any, **settings: Any) -> Any:
    always: dict[str, Any] = {"minutes": None, "max_steps": 2, "crop": 8, "batch_size": 2, "progress": False}
    return fit(model_of(chain), *(args or (clip(),)), **always | settings)


def is_cached(distiller: Any) -> bool:
    return isinstance(distiller.trainer.datamodule.pairs.source, CachedFrames)


def test_recurrent_teachers_get_sequences(chain: nn.Module) -> None:
    data = run(chain, adapter=Fed(chain, "1", "4")).trainer.datamodule
    assert isinstance(data.pairs, Sequences)
    assert data.pairs.window == 3 + 2  # an interval, and what the video opens with
    assert isinstance(run(chain).trainer.datamodule.pairs, Pairs)


def test_cached_features_train_as_the_teacher_does(chain: nn.Module, tmp_path: Path) -> None:
    live, cached = run(chain, lr=0.0), run(chain, lr=0.0, cache=tmp_path / "features")
    assert is_cached(cached)
    assert [path.suffix for path in (tmp_path / "features").iterdir()] == [".features"]
    losses = [float(each.trainer.callback_metrics["train/loss"]) for each in (live, cached)]
    assert losses[1] == pytest.approx(losses[0], rel=0.5)  # other samples: nothing is flipped
    trained = run(chain, cache=tmp_path / "features", validation=clip(), adapter=None, max_steps=4)
    assert trained.trainer.callback_metrics["val/psnr"] > 0


def test_features_are_kept_where_it_pays(chain: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"cache": "auto", "max_steps": 1}
    assert is_cached(run(chain, minutes=9.0, **short))
    assert not is_cached(run(chain, **short))  # ends by steps: nothing is known
    assert is_cached(run(chain, minutes=9.0, folder=tmp_path, **short))
    assert not (tmp_path / "features").exists()  # the run has ended, its checkpoint remembers the choice
    monkeypatch.setattr(pace, "LIMIT_GB", 1e-6)
    assert not is_cached(run(chain, minutes=9.0, **short))
    resumed = run(chain, minutes=9.0, cache="auto", max_steps=2, folder=tmp_path, resume=tmp_path / "last.ckpt")
    assert is_cached(resumed)


def test_what_is_kept_is_measured_as_it_is_stored(chain: nn.Module, tmp_path: Path) -> None:
    """Pictures stay in float32, so that a limit between their sizes and those of bfloat16 is too tight."""
    model, adapter = model_of(chain), Adapter(chain, "1", "4")
    bytes_stored = sum(map(size_of_leaf, live_leaves(model))) * 9
    cost = pace.frame_cost(model, adapter, clip())
    with pytest.MonkeyPatch.context() as patch:
        for share, expected in ((1.01, True), (0.99, False)):
            patch.setattr(pace, "LIMIT_GB", share * bytes_stored / 1e9)
            assert (pace.caching_seconds(cost, [clip()], 9.0, 1000, tmp_path) is not None) is expected
    cached = FeatureCache(tmp_path, model)
    cached.features(clip())
    assert cached.bytes == pytest.approx(bytes_stored, rel=0.01)  # tensors begin at multiples of 64


def test_features_of_a_heavy_teacher_may_take_as_long_as_the_run(tmp_path: Path) -> None:
    example = Features(Carry((torch.zeros(1, 4, 12, 16),), ()), (torch.zeros(1, 4, 12, 16),))
    light, heavy = (pace.FrameCost(seconds, 0.1, example) for seconds in (0.1, 3.0))
    assert pace.caching_seconds(light, [clip()], 0.1, 192, tmp_path) == pytest.approx(0.9)  # a seventh of the run
    assert pace.caching_seconds(light, [clip()], 0.05, 192, tmp_path) is None  # more than a fifth
    assert pace.caching_seconds(heavy, [clip()], 0.5, 192, tmp_path) == pytest.approx(27)  # of thirty seconds
    assert pace.caching_seconds(heavy, [clip()], 0.4, 192, tmp_path) is None
    assert pace.caching_seconds(heavy, [clip()], None, 192, tmp_path) is None  # ends by steps: nothing is known


def live_leaves(model: shortcutv2v.ShortcutV2V) -> list[Tensor]:
    carry = model.head(clip()[:1] / 255)
    return [*carry.a, *(leaf for leaf in carry.kept if isinstance(leaf, Tensor)), *model.middle(carry)]


def size_of_leaf(leaf: Tensor) -> int:
    return leaf.numel() * (4 if leaf.shape[1] <= 4 else 2)


@pytest.mark.parametrize("cached", [True, False])
def test_a_resumed_run_keeps_features_if_it_did_before(
    cached: bool, chain: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the resumed run is: the choice is not made anew."""
    monkeypatch.setattr(pace, "LIMIT_GB", 8.0 if cached else 0.0)
    run(chain, minutes=9.0, folder=tmp_path)
    monkeypatch.setattr(pace, "LIMIT_GB", 0.0 if cached else 8.0)
    (tmp_path / "features").mkdir()  # as a run that was killed leaves it
    resumed = run(chain, minutes=9.0, max_steps=3, folder=tmp_path / "other", resume=tmp_path / "last.ckpt")
    assert resumed.trainer.global_step == 3
    assert is_cached(resumed) is cached
    assert resumed.trainer.datamodule.cache == (tmp_path / "features" if cached else None)


@pytest.mark.parametrize("feedback", ["teacher", "own"])
def test_a_block_fed_with_its_own_outputs_trains_on_frames(feedback: str, chain: nn.Module) -> None:
    made = run(chain, clip(12), minutes=9.0, adapter=Fed(chain, "1", "4"), feedback=feedback)
    assert isinstance(made.trainer.datamodule.pairs, Sequences)
    assert is_cached(made) is (feedback == "teacher")


def test_validation_looks_at_all_clips(chain: nn.Module) -> None:
    black, white = torch.zeros(60, 3, 12, 16, dtype=torch.uint8), torch.full((60, 3, 12, 16), 255, dtype=torch.uint8)
    orders = []
    for _ in range(2):
        loader = run(chain, validation=[black, white]).trainer.datamodule.val_dataloader()
        orders.append([float(window.mean()) for window in loader])
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == [0.0] * 20 + [1.0] * 20
    assert 0 < sum(orders[0][:8]) < 8


def test_cached_sequences_begin_behind_the_opening(chain: nn.Module, tmp_path: Path) -> None:
    data = run(chain, adapter=Fed(chain, "1", "4"), cache=tmp_path).trainer.datamodule
    assert data.pairs.window == 3


def test_preset_sets_what_is_not_given(chain: nn.Module) -> None:
    weights = LossWeights(perceptual=0, gan=0)
    distiller = run(chain, preset="e2f", weights=weights, lr=0.5, batch_size=None, max_steps=1)
    assert (distiller.lr, distiller.lr_discriminator, distiller.betas) == (0.5, 2e-5, (0.5, 0.999))
    assert distiller.weights == weights
    assert distiller.trainer.datamodule.batch_size == 16
    assert isinstance(distiller.trainer.datamodule.pairs, Sequences)
    with pytest.raises(InputError, match="no preset 'e2'"):
        run(chain, preset="e2")


def test_weights_are_changed_by_name() -> None:
    assert weights_of(None, {"gan": 2.0}) == LossWeights(perceptual=0, gan=2.0, temporal_gan=0)
    assert weights_of("v2c", {"gan": 2.0}) == LossWeights(gan=2.0)
    with pytest.raises(InputError, match="no loss sharp: expected some of feature"):
        weights_of(None, {"sharp": 1.0})


def test_a_run_that_gains_nothing_ends_early(chain: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    distiller = run(chain, lr=0.0, validation=clip(), patience=2, max_steps=50, progress=True, val_check_interval=1)
    assert distiller.trainer.global_step == 3
    assert "no gain in 2 validations: stopped at step 3 (PSNR" in capsys.readouterr().out


def test_short_runs_show_psnr(chain: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    distiller = run(chain, validation=clip(), max_steps=12, progress=True)
    shown = capsys.readouterr()
    assert re.search(r"step=10,[^\r]* PSNR=\d+", shown.err)
    values = [
        float(distiller.trainer.callback_metrics[f"val/{name}"]) for name in ("psnr", "psnr_reuse", "psnr_repeat")
    ]
    line = "PSNR {:.4g} dB to the teacher (reuse {:.4g}, repeat {:.4g})"
    assert line.format(*values) in shown.out


def test_one_small_clip_does_not_shrink_the_crops_in_silence(chain: nn.Module) -> None:
    small = clip()[..., :7, :6]
    with pytest.warns(UserWarning, match="crops are 7x6 and not 8x8, since a clip is no larger"):
        run(chain, [clip(), small])
    assert run(chain, small).trainer.datamodule.pairs[0].shape[2:] == (7, 6)  # all are: used whole


def test_crops_that_the_teacher_cannot_take_are_named(unet: nn.Module) -> None:
    model = shortcutv2v.wrap(unet, "first", "up", example_inputs=(torch.rand(1, 3, 12, 16),), channels=4)
    with pytest.raises(InputError, match=r"frames \(3, 9, 9\), as clips and crop give them: the teacher itself failed"):
        fit(model, clip(), minutes=None, max_steps=1, crop=9, batch_size=2, progress=False)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_fit_trains_where_inference_is_meant(mode: Any, chain: nn.Module) -> None:
    model = model_of(chain)
    with mode():
        weights = LossWeights.plain(gan=1)  # makes parameters of its own
        made = fit(model, clip(), minutes=None, max_steps=2, crop=8, batch_size=2, progress=False, weights=weights)
        assert not torch.is_grad_enabled()
    assert not any(parameter.is_inference() for parameter in made.parameters())
    with torch.inference_mode():
        other = model_of(type(chain)())
    with pytest.raises(InputError, match=r"made under torch.inference_mode\(\) and cannot be trained"):
        fit(other, clip(), minutes=None, max_steps=2, progress=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_teachers_of_any_precision_train(dtype: torch.dtype, chain: nn.Module) -> None:
    teacher = chain.to(dtype)
    frame = torch.rand(1, 3, 12, 16, dtype=dtype)
    model = shortcutv2v.wrap(teacher, "1", "4", example_inputs=(frame,), channels=4)
    distiller = fit(model, clip(), validation=clip(), minutes=None, max_steps=2, crop=8, batch_size=2, progress=False)
    assert {parameter.dtype for parameter in teacher.parameters()} == {dtype}
    assert distiller.trainer.callback_metrics["val/psnr"] > 0


def test_a_run_that_fails_leaves_the_model_to_be_used(chain: nn.Module) -> None:
    model = model_of(chain)
    with torch.no_grad():
        next(model.blocks.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteLossError, match=tempfile.gettempdir()):
        fit(model, clip(), minutes=None, max_steps=2, crop=8, batch_size=2, progress=False)
    assert not model.blocks.training


def test_average_is_what_fit_leaves(chain: nn.Module) -> None:
    plain, averaged = run(chain, lr=0.05, max_steps=6), run(chain, lr=0.05, max_steps=6, ema=0.99)
    pairs = zip(plain.model.blocks.parameters(), averaged.model.blocks.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


class Numbers:
    """Samples that are their own numbers."""

    def at(self, number: int, crop: Any) -> Tensor:
        return torch.tensor([number, *(crop or ())])


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_samples_are_dealt_out_without_gaps(processes: int) -> None:
    plan = Plan(6 // processes, None)
    found = []
    for number in (4, 5):
        dealt = [Batches(Numbers(), plan, rank, processes)[number][:, 0].tolist() for rank in range(processes)]
        found += [sample for turn in zip(*dealt, strict=True) for sample in turn]
    assert found == list(range(24, 36))  # at equal global batch, whatever the number of processes


def test_a_run_goes_on_with_the_batch_after_the_last() -> None:
    batches = Batches(Numbers(), Plan(2, None))
    assert [batches[number].tolist() for number, _ in zip(_From(batches, 7), range(2), strict=False)] == [
        [[14], [15]],
        [[16], [17]],
    ]


def test_lightning_deals_out_nothing_itself(chain: nn.Module) -> None:
    loader = run(chain).trainer.train_dataloader
    assert isinstance(loader.sampler, _From)


def test_unknown_kind_is_named() -> None:
    with pytest.raises(InputError, match="unknown kind of data 'triples': expected one of auto, pairs, sequences"):
        ClipData(clip(), kind="triples")


def test_writes_nothing_without_a_folder(chain: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(chain, validation=clip(), max_steps=1)
    assert list(tmp_path.iterdir()) == []
    run(chain, validation=clip(), max_steps=1, folder="out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["last.ckpt", "logs", "training.html"]


def test_own_callbacks_fit_a_plain_trainer(chain: nn.Module) -> None:
    """What `fit` is made of serves a trainer of one's own."""
    trainer = pl.Trainer(
        max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    with quiet_lightning():
        trainer.fit(Distiller(model_of(chain)), ClipData(clip(), crop=8, batch_size=2))
    assert trainer.global_step == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minutes": 0}, "minutes must be a number above 0"),
        ({"minutes": 1e13}, "minutes must be"),
        ({"seed": "a"}, "seed must be a whole number"),
        ({"ema": 2}, "ema must be a number above 0 and below 1, got 2"),
        ({"save_every": 0}, "save_every must be a whole number of at least 1"),
        ({"patience": 0}, "patience must be a whole number of at least 1"),
        ({"frames": 0}, "frames, the length of a sequence, must be"),
        ({"frames": 4}, "frames is the length of sequences, but pairs are drawn"),
        ({"preset": 3}, "preset must be a name or a Preset, got 3"),
        ({"perceptual": nn.L1Loss()}, "perceptual is given, but the weight of the perceptual loss is 0: give it one"),
        ({"perceptual": nn.L1Loss}, "perceptual must be a Module, got the class L1Loss"),
        ({"precision": "64-true"}, "would convert the teacher itself"),
        ({"precision": "bf16-true"}, "would round the teacher's weights"),
        ({"folder": "/proc"}, "/proc cannot be a folder to write to"),
        ({"max_steps": 0}, "the number of steps must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"crop": (8, 8)}, "crop, the side of a square, must be a whole number"),
        ({"lr": -1.0}, "lr must be a number of at least 0"),
        ({"lr": float("nan")}, "lr must be a number of at least 0, got nan"),
        ({"schedule": 0}, "schedule must be"),
        ({"weights": {"feature": 3}}, "weights must be a LossWeights, got a dict"),
        ({"weights": LossWeights(0, 0, 0, 0, 0, 0)}, "every loss has weight zero"),
        ({"precision": "bf17"}, "Precision 'bf17' is invalid"),
        ({"adapter": "real_esrgan"}, "adapter must be a Adapter, got a str"),
        ({"folder": __file__}, "cannot be a folder to write to"),
        ({"distiller": "Distiller"}, "distiller must be Distiller or a subclass"),
        ({"validation": clip(), "patience": -1}, "patience must be"),
    ],
)
def test_bad_values_are_refused_by_name(settings: dict[str, Any], message: str, chain: nn.Module) -> None:
    with pytest.raises(InputError, match=message):
        run(chain, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversary": Adversary(width=4)}, "adversary is given, but the weights gan and temporal_gan are 0"),
        (
            {"adversary": Adversary(width=4, spatial=False), "weights": LossWeights.plain(gan=1)},
            "the adversary judges nothing with weights gan=1 and temporal_gan=0",
        ),
        ({"adversary": Adversary}, "adversary must be a Adversary, got the class Adversary"),
        ({"truncate": 2}, 'truncate is for feedback="own"'),
        ({"truncate": 1.5, "feedback": "own"}, "truncate must be a whole number"),
        ({"betas": 0.5}, "betas must be two numbers"),
    ],
)
def test_what_would_not_be_used_is_refused(settings: dict[str, Any], message: str, chain: nn.Module) -> None:
    with pytest.raises(InputError, match=message):
        Distiller(model_of(chain), **settings)


def test_a_teacher_is_to_be_wrapped_first(chain: nn.Module) -> None:
    with pytest.raises(InputError, match=r"model must be a ShortcutV2V, got a Chain: wrap the teacher"):
        fit(chain, clip(), minutes=1)  # type: ignore[arg-type]


def test_label_maps_and_pictures_make_no_batch(chain: nn.Module) -> None:
    with pytest.raises(InputError, match="clips of 1 and 3 channels"):
        run(chain, [clip(), clip()[:, :1]])


def test_pairs_want_a_list_of_clips_and_two_sides() -> None:
    with pytest.raises(InputError, match=r"is it a list of clips, \[clip\]"):
        Pairs(clip())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"crop must be \(height, width\)"):
        Pairs([clip()], crop=8)  # type: ignore[arg-type]


def test_the_bar_does_not_fill_a_log_file(chain: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    run(chain, max_steps=20, progress=True)
    shown = capsys.readouterr().err
    assert "step=20" in shown
    assert shown.count("step=") <= 4 + 2 * (time.monotonic() - begun)  # a line every half second, and the ends
