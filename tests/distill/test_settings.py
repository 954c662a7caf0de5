"""The options of a run: declared once, taken by name or as an object, refused where they make no sense."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.distill import Adversary, Distiller, LossWeights, Preset, Settings, TrainerSettings, fit
from shortcutv2v.distill.datamodule import ClipData
from shortcutv2v.errors import InputError


def clip() -> Tensor:
    return torch.randint(0, 256, (9, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def model_of(chain: nn.Module, dtype: torch.dtype = torch.float32) -> shortcutv2v.ShortcutV2V:
    frame = torch.rand(1, 3, 12, 16, dtype=dtype)
    return shortcutv2v.wrap(chain.to(dtype), "1", "4", example_inputs=(frame,), channels=4)


SHORT: dict[str, Any] = {"minutes": None, "steps": 1}


def test_an_object_and_names_say_the_same(chain: nn.Module) -> None:
    values: dict[str, Any] = {"lr": 0.01, "crop": 8, "batch_size": 2, "progress": False}
    by_name = fit(model_of(chain), clip(), **SHORT, precision="bf16-mixed", **values)
    trainer = TrainerSettings(precision="bf16-mixed")
    by_object = fit(model_of(chain), clip(), **SHORT, settings=Settings(trainer=trainer, **values))
    assert by_name.settings.plain() == by_object.settings.plain()
    assert by_name.trainer.precision == by_object.trainer.precision == "bf16-mixed"


def test_names_replace_what_the_object_says(chain: nn.Module) -> None:
    base = Settings(lr=0.01, crop=8, batch_size=2, progress=False)
    made = fit(model_of(chain), clip(), **SHORT, settings=base, lr=0.02)
    assert (made.lr, made.trainer.datamodule.batch_size) == (0.02, 2)
    assert base.lr == 0.01


def test_max_steps_is_taken_for_steps(chain: nn.Module) -> None:
    always: dict[str, Any] = {"minutes": None, "crop": 8, "batch_size": 2, "progress": False}
    assert fit(model_of(chain), clip(), max_steps=3, **always).trainer.global_step == 3
    with pytest.raises(InputError, match="training would never end"):
        fit(model_of(chain), clip(), max_steps=-1, **always)


def test_settings_serve_distiller_and_data(chain: nn.Module) -> None:
    base = Settings(preset="e2f", weights=LossWeights.plain(), batch_size=3)
    assert Distiller(model_of(chain), settings=base).lr == 1e-4
    assert ClipData(clip(), settings=base).batch_size == 3
    assert ClipData(clip(), settings=base).settings.kind == "sequences"


def test_a_preset_of_ones_own_fills_what_is_not_given() -> None:
    own = Preset(lr=0.5, lr_discriminator=0.25, max_interval=2, batch_size=5, weights=LossWeights.plain())
    found = Settings(preset=own, batch_size=7).filled()
    assert (found.lr, found.lr_discriminator, found.batch_size, found.kind) == (0.5, 0.25, 7, "pairs")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"learning_rate": 1}, "no option learning_rate: expected one of"),
        ({"batchsize": 1}, "no option batchsize: did you mean batch_size"),
        ({"gradient_clip": 1}, "no option gradient_clip: did you mean gradient_clip_val"),
        ({"settings": {"lr": 1}}, "settings must be a Settings, got a dict"),
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": 99999999999}, "seed must be a whole number of at least 0 and at most 4294967295"),
        ({"size": 99999999}, "size must be a whole number of at least 1 and at most 16384"),
        ({"size": (180, 0)}, "size must be a whole number"),
        ({"batch_size": 100000}, "batch_size must be a whole number of at least 1 and at most 1024"),
        ({"workers": 200}, "workers, the number of reading processes, must be"),
        ({"devices": -5}, "trainer.devices must be"),
        ({"gradient_clip_val": 0}, "trainer.gradient_clip_val must be a number above 0"),
        ({"feedback": "none"}, "unknown feedback 'none': expected one of teacher, own"),
        ({"betas": (0.5, 1.0)}, "each of betas must be"),
        ({"cache": 3}, "cache must be a path or None, got 3"),
        ({"folder": 5}, "folder must be a path or None, got 5"),
        ({"resume": True}, "resume must be a path or None, got True"),
        ({"progress": "no"}, "progress must be a bool, got a str"),
        ({"trainer": {"devices": 2}}, "trainer must be a TrainerSettings, got a dict"),
        ({"devices": "many"}, "devices"),
        ({"strategy": "nope"}, "invalid strategy name"),
        ({"accelerator": "abacus"}, "invalid accelerator name"),
        ({"minutes": float("nan")}, "minutes must be a number above 0"),
    ],
)
def test_unknown_names_and_bad_values_are_refused(names: dict[str, Any], message: str, chain: nn.Module) -> None:
    with pytest.raises(InputError, match=message):
        fit(model_of(chain), clip(), **SHORT | names)


@pytest.mark.parametrize("given", [{"adversary": Adversary(width=4)}, {"perceptual": nn.L1Loss()}, {"truncate": 2}])
def test_options_that_would_change_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Settings(**given).filled()


def test_every_option_is_documented() -> None:
    for kind in (Settings, TrainerSettings):
        assert kind.__doc__
        for each in dataclasses.fields(kind):
            assert f"\n        {each.name}: " in kind.__doc__


def test_float16_weights_are_refused_before_they_become_nan(chain: nn.Module) -> None:
    with pytest.raises(InputError, match=r"the blocks are in float16.*--trainer\.precision 16-mixed"):
        fit(model_of(chain, torch.float16), clip(), **SHORT, progress=False)
