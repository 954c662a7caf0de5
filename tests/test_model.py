"""wrap(), the two passes, the teacher left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import shortcutv2v
from shortcutv2v.errors import (
    CutOrderError,
    InputError,
    LeakError,
    ShortcutError,
    SpatialMismatchError,
    UnknownLayerError,
)


def frame(batch: int = 1, size: tuple[int, int] = (12, 16)) -> torch.Tensor:
    return torch.rand(batch, 3, *size)


def wrap(cut_teacher: tuple[nn.Module, str, str], **kwargs: object) -> shortcutv2v.ShortcutV2V:
    teacher, enc_layer, dec_layer = cut_teacher
    return shortcutv2v.wrap(teacher, enc_layer, dec_layer, example_inputs=(frame(),), **kwargs)


def same(one: object, other: object) -> bool:
    left, left_spec = pytree.tree_flatten(one)
    right, right_spec = pytree.tree_flatten(other)
    return left_spec == right_spec and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_true_features_give_the_teachers_output_bit_for_bit(cut_teacher: tuple[nn.Module, str, str]) -> None:
    model = wrap(cut_teacher)
    for x in (frame(), frame(2), frame(1, (20, 8))):
        carry = model.head(x)
        f = model.middle(carry)
        assert same(model.tail(carry, f), cut_teacher[0](x))
        output, reference = model.reference(x)
        assert same(output, cut_teacher[0](x))
        assert same(model.shortcut(reference, x), output)  # a still scene, untrained: exact


def test_shortcut_touches_nothing_of_the_middle(cut_teacher: tuple[nn.Module, str, str]) -> None:
    model = wrap(cut_teacher)
    _, reference = model.reference(frame())
    x = frame()
    before = model.shortcut(reference, x)
    middle = {"chain": ("2", "3", "4"), "unet": ("down", "mid", "up", "norm"), "two_outputs": ("body", "dec")}
    names = {"Chain": "chain", "UNet": "unet", "TwoOutputs": "two_outputs"}
    with torch.no_grad():
        for name in middle[names[type(cut_teacher[0]).__name__]]:
            for parameter in cut_teacher[0].get_submodule(name).parameters():
                parameter.fill_(float("nan"))
    assert same(model.shortcut(reference, x), before)


def test_teacher_is_left_as_found(cut_teacher: tuple[nn.Module, str, str]) -> None:
    teacher = cut_teacher[0]
    next(iter(teacher.children())).eval()
    fired = []
    handle = list(teacher.children())[-1].register_forward_hook(lambda *_: fired.append(1))
    flags = {name: m.training for name, m in teacher.named_modules()}
    state = copy.deepcopy(teacher.state_dict())
    grads = [p.requires_grad for p in teacher.parameters()]
    model = wrap(cut_teacher)
    model.eval()
    model.train()
    with pytest.raises(ShortcutError):
        shortcutv2v.wrap(teacher, "nothing", cut_teacher[2], example_inputs=(frame(),))
    with pytest.raises(ShortcutError):
        shortcutv2v.wrap(teacher, cut_teacher[2], cut_teacher[1], example_inputs=(frame(),))
    assert {name: m.training for name, m in teacher.named_modules()} == flags
    assert [p.requires_grad for p in teacher.parameters()] == grads
    assert all(torch.equal(state[k], v) for k, v in teacher.state_dict().items())
    assert sum(len(m._forward_hooks) for m in teacher.modules()) == 1
    fired.clear()
    model.reference(frame())
    assert fired  # the user's own hook still fires
    handle.remove()


def test_parameters_are_shared_and_only_the_blocks_are_trained(chain: nn.Module) -> None:
    model = wrap((chain, "1", "4"))
    x = frame()
    with torch.no_grad():
        chain[5].bias.add_(1)
    assert torch.equal(model.reference(x)[0], chain(x))
    trained = {id(p) for p in model.parameters()}
    assert trained
    assert trained.isdisjoint(id(p) for p in chain.parameters())
    assert all(key.startswith("blocks.") for key in model.state_dict())


def test_moving_the_model_moves_the_teacher(chain: nn.Module) -> None:
    model = wrap((chain, "1", "4")).double()
    assert chain[0].weight.dtype == torch.float64
    assert model(frame().double()).dtype == torch.float64


def test_keyword_inputs(cut_teacher: tuple[nn.Module, str, str]) -> None:
    teacher, enc_layer, dec_layer = cut_teacher
    if not hasattr(teacher, "dec"):
        pytest.skip("takes no keyword")
    model = shortcutv2v.wrap(teacher, enc_layer, dec_layer, example_inputs=(frame(),), example_kwargs={"gain": 2.0})
    x = frame()
    for gain in (2.0, 3.0):
        assert same(model.reference(x, gain=gain)[0], teacher(x, gain=gain))


def test_reference_and_carry_are_pytrees(unet: nn.Module) -> None:
    model = wrap((unet, "first", "up"))
    x = frame()
    _, reference = model.reference(x)
    carry = model.head(x)
    copies = [pytree.tree_map(lambda t: t.clone() if isinstance(t, torch.Tensor) else t, y) for y in (reference, carry)]
    assert isinstance(copies[0], shortcutv2v.Reference)
    assert torch.equal(model.tail(copies[1], model.predict(*copies)), model.shortcut(reference, x))


def test_channels_default_to_half_of_f(chain: nn.Module) -> None:
    (block,) = wrap((chain, "1", "4")).blocks
    assert (block.a_channels, block.f_channels, block.channels) == (6, 6, 3)
    (block,) = wrap((chain, "1", "4"), channels=[5]).blocks
    assert block.channels == 5


class TestErrors:
    def test_unknown_layer_lists_near_matches(self, unet: nn.Module) -> None:
        with pytest.raises(UnknownLayerError, match="down"):
            shortcutv2v.wrap(unet, "donw", "up", example_inputs=(frame(),))

    def test_spatial_mismatch_states_both_shapes(self, unet: nn.Module) -> None:
        with pytest.raises(SpatialMismatchError, match=r"12.*16.*6.*8"):
            shortcutv2v.wrap(unet, "first", "mid", example_inputs=(frame(),))

    def test_wrong_order(self, chain: nn.Module) -> None:
        with pytest.raises(CutOrderError, match="'?4'?"):
            shortcutv2v.wrap(chain, "4", "1", example_inputs=(frame(),))

    def test_leak_names_the_layer(self) -> None:
        class Leaky(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 1) for _ in range(4))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                inside = self.b(self.a(x))
                return self.d(self.c(inside)) + inside

        with pytest.raises(LeakError, match="b"):
            shortcutv2v.wrap(Leaky(), "a", "c", example_inputs=(frame(),))
        model = shortcutv2v.wrap(Leaky(), "a", "c", example_inputs=(frame(),), on_leak="reuse")
        x = frame()
        output, reference = model.reference(x)
        assert torch.equal(output, model.teacher(x))
        assert torch.equal(model.shortcut(reference, x), output)

    def test_a_width_per_branch(self, chain: nn.Module) -> None:
        with pytest.raises(InputError, match="2 entries for 1 branches"):
            wrap((chain, "1", "4"), channels=[3, 3])

    def test_reference_of_another_size(self, chain: nn.Module) -> None:
        model = wrap((chain, "1", "4"))
        _, reference = model.reference(frame())
        with pytest.raises(InputError, match=r"\(1, 6, 12, 16\).*\(1, 6, 8, 8\)"):
            model.shortcut(reference, frame(1, (8, 8)))


def test_a_reference_comes_first(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(frame(),))
    with pytest.raises(InputError, match=r"got Tensor: output, reference = model.reference"):
        model.shortcut(frame(), frame())


@pytest.mark.parametrize("variant", ["paper", "flow"])
@torch.no_grad()
def test_a_reference_and_autocast(chain: nn.Module, variant: str) -> None:
    """One made in lower precision serves, and so does autocast after it; one made in higher precision is refused."""
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(frame(),), variant=variant).eval()
    references = []
    for narrow in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            references.append(model.reference(frame())[1])
    for reference in references:
        for narrow in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                assert model.shortcut(reference, frame()).isfinite().all()
    wide = pytree.tree_map(lambda x: x.double(), references[0])
    with pytest.raises(InputError, match=r"\(float64, cpu\), the current frame gives .*\(float32, cpu\)"):
        model.shortcut(wide, frame())
