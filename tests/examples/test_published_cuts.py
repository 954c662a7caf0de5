"""All published cuts can be wrapped: the split is exact, and a shortcut frame touches nothing of the middle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from examples.unsup import teacher as unsup
from examples.vid2vid import teacher as vid2vid
from examples.vtoonify import teacher as vtoonify
from torch import Tensor, nn

from shortcutv2v.errors import LeakError
from shortcutv2v.wrap import wrap

LEVELS = ("low", "medium", "high")
Case = tuple[nn.Module, Any, Any, tuple[Any, ...], dict[str, Any], tuple[str, ...]]


def _unsup(blocks: int, level: str) -> Case:
    net = unsup.build_teacher({"ngf": 2, "n_blocks": blocks})
    enc, dec = unsup.published_cut(blocks, level)
    first, last = (int(name.removeprefix("model.")) for name in (enc, dec))
    middle = tuple(f"model.{index}." for index in range(first + 1, last + 1))
    return net, enc, dec, (torch.randn(1, 3, 16, 24),), {}, middle


def _vid2vid(kind: str, level: str) -> Case:
    net = vid2vid.build_teacher(
        {
            "input_nc": 5,
            "prev_output_nc": 6,
            "ngf": 2,
            "n_blocks": 3,
            "fg": kind == "foreground",
            "no_flow": kind == "no flow",
        }
    )
    assert isinstance(net, vid2vid.CompositeGenerator)
    vid2vid.frame_statistics(net).use_raw_only = True
    enc, dec = vid2vid.published_cut(3, level)
    first = int(enc[0].rpartition(".")[2])
    kwargs = {"mask": (torch.rand(1, 1, 16, 16) > 0.5).float()} if kind == "foreground" else {}
    branches = [f"model_down_{name}.{index}." for name in ("seg", "img") for index in range(first + 1, 15)]
    ups = [f"model_up_img.{index}." for index in range(int(dec.rpartition(".")[2]) + 1)] if level != "high" else []
    middle = (
        *branches,
        *ups,
        "model_res_img.",
        "model_res_flow.",
        "model_up_flow.",
        "model_final_flow",
        "model_final_w",
    )
    return net, enc, dec, (torch.randn(1, 5, 16, 16), torch.randn(1, 6, 16, 16)), kwargs, middle


def _vtoonify(backbone: str, level: str) -> Case:
    channels = {4: 6, 8: 6, 16: 6, 32: 6, 64: 5, 128: 4, 256: 4}
    config = {"in_size": 128, "out_size": 256, "style_channels": 8, "num_mlps": 7, "backbone": backbone}
    net = vtoonify.build_teacher({**config, "generator_channels": channels})
    enc, dec = vtoonify.published_cut(backbone, 128, level)
    step = LEVELS[::-1].index(level)
    prefix = "generator.generator." if net.dual else "generator."
    middle = [f"encoder.{index}." for index in range(3 - step, 5)] + ["res."]
    for level_index in range(step):
        middle += [f"fusion_out.{level_index}.", f"fusion_skip.{level_index}."]
        middle += [f"{prefix}convs.{6 + 2 * level_index}.", f"{prefix}convs.{7 + 2 * level_index}."]
        middle.append(f"{prefix}to_rgbs.{3 + level_index}.")
    return net, enc, dec, (torch.randn(1, 22, 16, 24), torch.randn(1, 14, 8)), {"d_s": 0.5}, tuple(middle)


def _cases() -> Iterator[Any]:
    for level in LEVELS:
        for blocks in (6, 9):
            yield pytest.param(_unsup, blocks, level, id=f"unsup {blocks} {level}")
        for kind in ("flow", "no flow", "foreground"):
            yield pytest.param(_vid2vid, kind, level, id=f"vid2vid {kind} {level}")
        for backbone in ("toonify", "dualstylegan"):
            yield pytest.param(_vtoonify, backbone, level, id=f"vtoonify {backbone} {level}")


def _tensors(output: Any) -> list[Tensor]:
    return [part for part in (output if isinstance(output, tuple) else (output,)) if part is not None]


@torch.no_grad()
@pytest.mark.parametrize(("make", "kind", "level"), list(_cases()))
def test_split_is_exact_and_shortcut_touches_nothing_of_the_middle(make: Any, kind: Any, level: str) -> None:
    torch.manual_seed(0)
    net, enc, dec, args, kwargs, middle = make(kind, level)
    model = wrap(net, enc, dec, example_inputs=args, example_kwargs=kwargs)
    fresh = (torch.randn_like(args[0]), *args[1:])
    output, reference = model.reference(*fresh, **kwargs)
    expected = net(*fresh, **kwargs)
    assert type(output) is type(expected)
    for ours, theirs in zip(_tensors(output), _tensors(expected), strict=True):
        assert torch.equal(ours, theirs)
    before = _tensors(model.shortcut(reference, *args, **kwargs))
    poisoned = [p for name, p in net.named_parameters() if f"{name}.".startswith(middle)]
    assert poisoned
    for parameter in poisoned:
        parameter.fill_(torch.nan)
    after = _tensors(model.shortcut(reference, *args, **kwargs))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not torch.isnan(after[0]).any()
    assert torch.isnan(_tensors(net(*args, **kwargs))[0]).any()


def test_branches_of_vtoonify_share_one_a() -> None:
    net, enc, dec, args, kwargs, _ = _vtoonify("toonify", "medium")
    with torch.no_grad():
        carry = wrap(net, enc, dec, example_inputs=args, example_kwargs=kwargs, channels=3).head(*args, **kwargs)
    assert len(carry.a) == 2
    assert torch.equal(carry.a[0], carry.a[1])


def test_the_flow_branch_would_leak() -> None:
    net, enc, dec, args, kwargs, _ = _vid2vid("flow", "medium")
    assert isinstance(net, vid2vid.CompositeGenerator)
    net.use_raw_only = False
    with pytest.raises(LeakError):
        wrap(net, enc, dec, example_inputs=args, example_kwargs=kwargs)
