"""No output shares memory with what a reference holds, and no reference with the caller's inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.graph import trap_teachers as traps
from torch import Tensor, nn

import shortcutv2v

FRAMES = torch.rand(4, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Views(traps.Base):
    """Returns `f`, `a` and the input under many names: themselves, views and slices, in a nested structure."""

    def __init__(self) -> None:
        super().__init__()
        self.dec = traps.conv(4, 3)
        self.flat = nn.Flatten(2)

    def forward(self, x: Tensor) -> Any:
        a = self.enc(x)
        f = self.deep(a)
        rows = self.flat(f)
        return {"f": f, "more": (f[:, :1], [rows, rows.view_as(f)], f.permute(0, 2, 3, 1)), "a": a.detach(), "x": x[:]}


class Passes(nn.Module):
    """`a` is a view of the input, `f` is `a` again."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mid, self.dec, self.out = nn.Identity(), nn.Identity(), nn.Identity(), traps.conv(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dec(self.mid(self.enc(x)))) + self.mid(x)  # type: ignore[no-any-return]


def leaves(value: Any) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, Tensor)]


@pytest.mark.parametrize("capture", ["fx", "export", "hooks"])
@pytest.mark.parametrize("variant", ["flow", "paper", "single_stage"])
@pytest.mark.parametrize("show_shortcut", [False, True])
def test_pictures_may_be_changed_in_place(variant: str, capture: str, show_shortcut: bool) -> None:
    torch.manual_seed(0)
    model = shortcutv2v.wrap(
        Views().eval(), "enc", "dec", example_inputs=(FRAMES[0],), variant=variant, capture=capture,
        show_shortcut=show_shortcut,
    )  # fmt: skip
    rough, careful = model.stream(2), model.stream(2)
    for frame in FRAMES:
        want = [t.clone() for t in leaves(careful(frame.clone()))]
        got = leaves(rough(frame.clone()))
        assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))
        for picture in got:
            picture.clamp_(0, 1).mul_(255)


@pytest.mark.parametrize("capture", ["fx", "export", "hooks"])
@pytest.mark.parametrize("net", [Views, Passes])
def test_one_buffer_may_hold_every_frame(net: type[nn.Module], capture: str) -> None:
    torch.manual_seed(0)
    model = shortcutv2v.wrap(
        net().eval(), "enc", "dec", example_inputs=(FRAMES[0],), capture=capture, max_interval=4, variant="paper"
    )
    buffer = torch.empty_like(FRAMES[0])
    ours, want = model.stream(), model.stream()
    for frame in FRAMES:
        got = leaves(ours(buffer.copy_(frame)))
        assert all(torch.equal(x, y) for x, y in zip(got, leaves(want(frame)), strict=True))


def test_outputs_that_share_nothing_are_not_copied() -> None:
    net = traps.Base().eval()
    with torch.no_grad():
        split = shortcutv2v.graph.Capture(net, shortcutv2v.graph.parse_cut(net, "enc", "dec"), (FRAMES[0],)).at(
            (FRAMES[0],)
        )
        carry = split.head(FRAMES[0])
        f = split.middle(carry)
        with torch.profiler.profile() as profile:
            split.tail(carry, f)
    assert "aten::clone" not in {event.key for event in profile.key_averages()}
