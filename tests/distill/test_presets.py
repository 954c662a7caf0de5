"""The presets are the paper's numbers, and they reach the Distiller."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v.distill import Distiller, LossWeights
from shortcutv2v.distill.presets import PRESETS, find_preset
from shortcutv2v.errors import InputError


@pytest.mark.parametrize(
    ("name", "lr", "lr_discriminator", "interval", "kind"),
    [
        ("v2c", 2e-4, 2e-7, 3, "pairs"),
        ("l2v", 2e-4, 2e-7, 3, "pairs"),
        ("e2f", 1e-4, 2e-5, 6, "sequences"),
        ("l2c", 5e-5, 2e-5, 3, "sequences"),
        ("vtoonify", 2e-4, 2e-7, 3, "pairs"),
    ],
)
def test_numbers_are_those_of_the_paper(
    name: str, lr: float, lr_discriminator: float, interval: int, kind: str
) -> None:
    preset = find_preset(name)
    assert (preset.lr, preset.lr_discriminator) == (lr, lr_discriminator)
    assert (preset.max_interval, preset.kind, preset.betas, preset.batch_size) == (interval, kind, (0.5, 0.999), 16)
    assert dataclasses.astuple(preset.weights) == (5, 5, 10, 10, 1, 1)


def test_all_are_tested() -> None:
    assert set(PRESETS) == {"v2c", "l2v", "e2f", "l2c", "vtoonify"}


def test_settings_reach_the_optimiser(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 8, 8),), channels=4)
    weights = LossWeights(perceptual=0)
    distiller = Distiller(model, preset="e2f", weights=weights, lr=3e-4)
    groups = {group["name"]: group for group in distiller.configure_optimizers().param_groups}
    assert {name: (group["lr"], group["betas"]) for name, group in groups.items()} == {
        "blocks": (3e-4, (0.5, 0.999)),
        "discriminators": (2e-5, (0.5, 0.999)),
    }
    assert (distiller.weights, distiller.decay) == (weights, 0.5)


def test_unknown_preset_is_named() -> None:
    with pytest.raises(InputError, match="no preset 'V2C': expected one of v2c, l2v, e2f, l2c, vtoonify"):
        find_preset("V2C")
