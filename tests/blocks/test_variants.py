"""Variants of one's own: how they are registered, and what is known about their arguments."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from shortcutv2v.blocks import FlowBlock, PaperBlock, ShortcutBlock
from shortcutv2v.errors import InputError


class Named(FlowBlock):
    """Takes `variant`, as the bundled blocks do."""

    variant = "test_named"

    def __init__(self, a_channels, f_channels, channels, variant=None, depth=2):
        super().__init__(a_channels, f_channels, channels, variant)
        self.deep = torch.nn.Sequential(*(torch.nn.Conv2d(channels, channels, 1) for _ in range(depth)))


class Unnamed(FlowBlock):
    """Does not take `variant`."""

    variant = "test_unnamed"

    def __init__(self, a_channels, f_channels, channels, depth=2):
        super().__init__(a_channels, f_channels, channels)
        self.deep = torch.nn.Sequential(*(torch.nn.Conv2d(channels, channels, 1) for _ in range(depth)))


class HandedOn(PaperBlock):
    """Hands its arguments on."""

    variant = "test_handed_on"

    def __init__(self, *args, depth=2, **kwargs):
        super().__init__(*args, **kwargs)
        self.deep = torch.nn.Sequential(*(torch.nn.Conv2d(self.channels, self.channels, 1) for _ in range(depth)))


OWN = [Named, Unnamed, HandedOn]
BUNDLED = sorted(name for name in ShortcutBlock.variants if not name.startswith("test_"))


@pytest.mark.parametrize("kind", OWN)
def test_arguments_are_kept_however_they_are_given(kind: type[ShortcutBlock]) -> None:
    wanted = {"a_channels": 4, "f_channels": 6, "channels": 3, "depth": 5}
    for block in (
        kind(4, 6, 3, depth=5),
        kind(4, f_channels=6, channels=3, depth=5),
        kind(a_channels=4, f_channels=6, channels=3, depth=5, variant=kind.variant),
        ShortcutBlock(4, 6, 3, variant=kind.variant, depth=5),
        ShortcutBlock(a_channels=4, f_channels=6, channels=3, variant=kind.variant, depth=5),
    ):
        assert type(block) is kind
        assert block.arguments == wanted
        assert len(block.deep) == 5
        again = ShortcutBlock(**block.arguments, variant=block.variant)
        again.load_state_dict(block.state_dict())
        assert "depth=5" in repr(block)


@pytest.mark.parametrize("kind", OWN)
def test_defaults_are_kept_too(kind: type[ShortcutBlock]) -> None:
    """Else a saved block would change with the default in the source."""
    assert kind(4, 6, 3).arguments["depth"] == 2


@pytest.mark.parametrize("variant", BUNDLED)
def test_bundled_blocks_are_made_again_from_their_arguments(variant: str) -> None:
    block = ShortcutBlock(4, 6, channels=3, variant=variant)
    assert block.arguments == {"a_channels": 4, "f_channels": 6, "channels": 3}
    for same in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert same.arguments == block.arguments
    ShortcutBlock(**block.arguments, variant=variant).load_state_dict(block.state_dict())


@pytest.mark.parametrize("taken", [*BUNDLED, "test_named"])
def test_a_name_that_is_taken_is_refused(taken: str) -> None:
    before = ShortcutBlock.variants[taken]
    with pytest.raises(InputError, match=f"'{taken}'.*taken by .*give your block another"):
        type("Other", (FlowBlock,), {"variant": taken})
    assert ShortcutBlock.variants[taken] is before


def test_a_class_may_be_defined_again() -> None:
    """As by importlib.reload, or by a cell of a notebook that runs twice."""
    first, second = (type("Again", (FlowBlock,), {"variant": "test_again"}) for _ in range(2))
    assert first is not second
    assert type(ShortcutBlock(4, 6, 3, variant="test_again")) is second


def test_an_unknown_variant_names_the_known_ones_and_the_import() -> None:
    with pytest.raises(InputError, match=r"unknown variant 'flwo'.*flow, .*import the module"):
        ShortcutBlock(4, 6, 3, variant="flwo")
    with pytest.raises(InputError, match="unknown variant 'paper': expected flow"):
        FlowBlock(4, 6, 3, variant="paper")
