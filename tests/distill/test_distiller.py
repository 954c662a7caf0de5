"""The LightningModule: right losses, frozen teacher, better than reuse, resumed as if never stopped."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch import nn
from torch.utils.data import DataLoader

import shortcutv2v
from shortcutv2v import video
from shortcutv2v.distill import Adversary, Distiller, LossWeights, Pairs, ShortcutFrame, fit
from shortcutv2v.distill.progress import quiet_lightning
from shortcutv2v.errors import CheckpointError, InputError


def moving(frames: int = 12, size: int = 16) -> torch.Tensor:
    """A smooth random texture that drifts two pixels a frame."""
    torch.manual_seed(3)
    texture = nn.functional.interpolate(torch.rand(1, 3, 8, 16), size=(size, size * 4), mode="bicubic")[0].clamp(0, 1)
    return torch.stack([(texture[..., 2 * t : 2 * t + size] * 255).byte() for t in range(frames)])


def model_of(teacher: nn.Module, variant: str = "flow", width: int = 4) -> shortcutv2v.ShortcutV2V:
    torch.manual_seed(1)
    return shortcutv2v.wrap(
        teacher, "1", "4", example_inputs=(torch.rand(1, 3, 16, 16),), variant=variant, channels=width
    )


def test_losses_are_those_of_the_paper(chain: nn.Module) -> None:
    model = model_of(chain, "paper")
    pair = torch.rand(2, 2, 3, 16, 16)
    distiller = Distiller(model, weights=LossWeights.plain(feature=5, alignment=5, output=10))
    found = distiller.losses(distiller.shortcut_frames(pair)[0])
    with torch.no_grad():
        reference, current = pair.unbind(1)
        upto_a, upto_f, tail = (nn.Sequential(*list(chain)[part]) for part in (slice(2), slice(5), slice(5, None)))
        f_ref, f, a_ref, a = upto_f(reference), upto_f(current), upto_a(reference), upto_a(current)
        (block,) = model.blocks
        seen = block.analyse(block.encode_reference(f_ref, a_ref), a)
        expected = {
            "feature": (f - seen.f_hat).abs().mean(),
            "alignment": (f - seen.f_star).abs().mean(),
            "output": (chain(current) - tail(seen.f_hat)).abs().mean(),
        }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-5, atol=1e-6)


def test_discriminators_without_a_weight_are_dropped(chain: nn.Module) -> None:
    distiller = Distiller(model_of(chain), weights=LossWeights.plain(gan=2.0), adversary=Adversary(width=4))
    (step,) = distiller.shortcut_frames(torch.rand(1, 2, 3, 16, 16))
    assert distiller.losses(step).keys() == {"feature", "alignment", "output", "gan"}
    assert distiller.discriminator_losses(step).keys() == {"discriminator"}
    assert not any("temporal" in name for name in distiller.state_dict())


def test_only_the_block_gets_gradients(chain: nn.Module) -> None:
    model = model_of(chain)
    distiller = Distiller(model)
    sum(distiller.losses(distiller.shortcut_frames(torch.rand(1, 2, 3, 16, 16))[0]).values()).backward()
    assert all(p.grad is None for p in chain.parameters())
    assert all(p.requires_grad for p in chain.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


def test_teacher_is_as_found_after_an_exception(chain: nn.Module) -> None:
    class Broken(Distiller):
        def losses(self, step: object) -> dict[str, torch.Tensor]:
            raise RuntimeError("stop here")

    before = copy.deepcopy(chain.state_dict())
    with pytest.raises(RuntimeError, match="stop here"):
        Broken(model_of(chain)).training_step(torch.rand(1, 2, 3, 16, 16), 0)
    assert all(p.requires_grad for p in chain.parameters())
    assert all(torch.equal(before[k], v) for k, v in chain.state_dict().items())


def test_training_passes_reuse(chain: nn.Module) -> None:
    distiller = fit(
        model_of(chain),
        moving(),
        minutes=None,
        max_steps=60,
        crop=16,
        batch_size=4,
        validation=moving(),
        progress=False,
        lr=5e-3,
    )
    scores = distiller.trainer.callback_metrics
    assert scores["val/psnr"] > scores["val/psnr_reuse"] + 1


@pytest.mark.parametrize("variant", ["paper", "flow"])
def test_resumed_run_equals_the_run_that_was_not_stopped(chain: nn.Module, tmp_path: Path, variant: str) -> None:
    def run(steps: int, **kwargs: object) -> shortcutv2v.ShortcutV2V:
        model = model_of(chain, variant)
        distiller = fit(
            model, moving(), minutes=None, max_steps=steps, crop=8, batch_size=2, progress=False, schedule=6, **kwargs
        )
        distiller.trainer.save_checkpoint(tmp_path / "stopped.ckpt")
        return model

    whole = run(6)
    run(3)
    resumed = run(6, resume=tmp_path / "stopped.ckpt")
    for expected, found in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_rate_is_constant_and_then_falls_to_zero(chain: nn.Module) -> None:
    rates = []

    class Watched(Distiller):
        def on_train_batch_end(self, *args: object) -> None:
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    distiller = Watched(model_of(chain), lr=1.0, decay=0.5)
    trainer = pl.Trainer(
        max_steps=8,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Timer()],
    )
    with quiet_lightning():
        trainer.fit(distiller, DataLoader(Pairs([moving()], crop=(8, 8), length=8), batch_size=1))
    assert rates == [1.0] * 5 + [0.75, 0.5, 0.25]


def test_interval_one_can_be_validated(chain: nn.Module) -> None:
    model = model_of(chain)
    model.refresh = shortcutv2v.Every(1)
    distiller = fit(model, moving(), validation=moving(), minutes=None, max_steps=1, crop=8, progress=False)
    assert "val/psnr" in distiller.trainer.callback_metrics


def test_checkpoint_holds_no_teacher(chain: nn.Module, tmp_path: Path) -> None:
    distiller = fit(model_of(chain), moving(), minutes=None, max_steps=1, crop=8, progress=False)
    distiller.trainer.save_checkpoint(tmp_path / "x.ckpt")
    stored = torch.load(tmp_path / "x.ckpt", weights_only=False)["state_dict"]
    assert stored
    assert all(key.startswith("model.blocks.") for key in stored)


def test_checkpoint_of_another_cut_is_refused(chain: nn.Module, tmp_path: Path) -> None:
    distiller = fit(model_of(chain), moving(), minutes=None, max_steps=1, crop=8, progress=False)
    distiller.trainer.save_checkpoint(tmp_path / "x.ckpt")
    other = model_of(chain, width=5)
    with pytest.raises(CheckpointError, match="another block: blocks"):
        fit(other, moving(), minutes=None, max_steps=2, crop=8, progress=False, resume=tmp_path / "x.ckpt")


def test_missing_checkpoint_is_named(chain: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*gone.ckpt"):
        fit(model_of(chain), moving(), minutes=None, max_steps=2, progress=False, resume=tmp_path / "gone.ckpt")


def test_a_pickle_that_is_no_checkpoint_is_refused(chain: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"no zip, no pickle")
    with pytest.raises(CheckpointError, match="damaged"):
        fit(model_of(chain), moving(), minutes=None, max_steps=2, progress=False, resume=tmp_path / "x.ckpt")
    torch.save({"callback": Distiller}, tmp_path / "y.ckpt")
    with pytest.raises(CheckpointError, match="UnpicklingError"):
        fit(model_of(chain), moving(), minutes=None, max_steps=2, progress=False, resume=tmp_path / "y.ckpt")


def test_folders_of_videos_and_of_frames_and_tensors_mix(chain: nn.Module, tmp_path: Path) -> None:
    for target in (tmp_path / "videos" / "one.mp4", tmp_path / "videos" / "two.mp4", tmp_path / "frames"):
        target.parent.mkdir(exist_ok=True)
        with video.create(target, rate=25) as writer:
            for frame in moving(4):
                writer.write(frame)
    sources = [tmp_path / "videos", tmp_path / "frames", moving(3)]
    distiller = fit(model_of(chain), sources, minutes=None, max_steps=1, crop=8, progress=False)
    assert len(distiller.trainer.datamodule.pairs.source.clips) == 4


def test_an_end_is_needed(chain: nn.Module) -> None:
    with pytest.raises(InputError, match="would never end"):
        fit(model_of(chain), moving(), minutes=None)


def test_negative_weight_is_named() -> None:
    with pytest.raises(InputError, match="alignment loss"):
        LossWeights(alignment=-1)


def unlogged(distiller: Distiller) -> Distiller:
    """Without a trainer there is nowhere to log to."""
    distiller.log = distiller.log_dict = lambda *args, **kwargs: None
    return distiller


def test_zero_weight_switches_a_loss_off(chain: nn.Module) -> None:
    distiller = Distiller(model_of(chain), weights=LossWeights.plain(alignment=0, output=0, feature=2))
    unlogged(distiller)
    pair = torch.rand(1, 2, 3, 16, 16)
    total = distiller.training_step(pair, 0)
    torch.testing.assert_close(total, 2 * distiller.losses(distiller.shortcut_frames(pair)[0])["feature"])


def test_one_backward_pass_serves_both_sides(chain: nn.Module) -> None:
    """Blocks get the generator's gradient alone, discriminators theirs alone, from one total."""
    torch.manual_seed(0)
    weights = LossWeights.plain(feature=0, alignment=0, output=0, gan=2, temporal_gan=3)
    distiller = Distiller(model_of(chain), weights=weights, adversary=Adversary(width=4, spectral_norm=False))
    blocks, discriminators = [*distiller.model.blocks.parameters()], [*distiller.adversary.parameters()]
    for parameter in blocks:
        nn.init.normal_(parameter, std=0.2)
    pair = torch.rand(2, 2, 3, 16, 16)
    total = unlogged(distiller).training_step(pair, 0)
    found = torch.autograd.grad(total, blocks + discriminators)
    (step,) = distiller.shortcut_frames(pair)
    generator, against = distiller.losses(step), distiller.discriminator_losses(step)
    expected = torch.autograd.grad(2 * generator["gan"] + 3 * generator["temporal_gan"], blocks)
    expected += torch.autograd.grad(sum(against.values()), discriminators)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    groups = distiller.configure_optimizers().param_groups
    assert {g["name"]: g["lr"] for g in groups} == {"blocks": 2e-4, "discriminators": 2e-7}


def test_a_loss_of_ones_own_counts_once_or_by_its_weight(chain: nn.Module) -> None:
    class Mine(Distiller):
        def losses(self, step: ShortcutFrame) -> dict[str, torch.Tensor]:
            return {"mine": step.picture.mean() + 1}

    pair = torch.rand(1, 2, 3, 16, 16)
    once = Mine(model_of(chain))
    torch.testing.assert_close(
        unlogged(once).training_step(pair, 0), once.losses(once.shortcut_frames(pair)[0])["mine"]
    )

    class Weights(LossWeights):
        mine = 4.0

    weighted = Mine(model_of(chain), weights=Weights.plain())
    torch.testing.assert_close(
        unlogged(weighted).training_step(pair, 0), 4 * once.losses(once.shortcut_frames(pair)[0])["mine"]
    )


def test_a_perceptual_module_is_held_frozen(chain: nn.Module) -> None:
    class Distance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, picture: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return self.scale * (picture - target).abs().mean((1, 2, 3))

    given = Distance()
    distiller = Distiller(model_of(chain), weights=LossWeights.plain(perceptual=1), perceptual=given)
    (step,) = distiller.shortcut_frames(torch.rand(2, 2, 3, 16, 16))
    found = distiller.losses(step)["perceptual"]
    torch.testing.assert_close(found, 2 * (step.picture - step.target).abs().mean())
    assert not any("perceptual" in name for name in [*distiller.state_dict(), *dict(distiller.named_parameters())])
    assert given.scale.requires_grad  # the user's own module is as it was


def test_half_precision_that_rounds_the_teacher_is_refused(chain: nn.Module) -> None:
    with pytest.raises(InputError, match="give 'bf16-mixed'"):
        fit(model_of(chain), moving(), minutes=None, max_steps=1, crop=8, progress=False, precision="bf16-true")
