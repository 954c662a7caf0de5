"""The split is the teacher: bit for bit with the true f, and without the middle in a shortcut pass."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from shortcutv2v import errors, graph


def conv(i: int, o: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1, **options)


class UNet(nn.Module):
    """Skips around the cut, in-place activations, a keyword, a dict as output, odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.inc = conv(3, 4)
        self.down = nn.Sequential(conv(4, 6, stride=2), nn.BatchNorm2d(6))
        self.deep = conv(6, 8, stride=2)
        self.mid = nn.Sequential(*[nn.Sequential(conv(8, 8), nn.ReLU(inplace=True)) for _ in range(2)])
        self.rise = conv(8, 6)
        self.up = conv(12, 4)
        self.out = conv(8, 3)

    def forward(self, x: Tensor, gain: float = 1.0) -> dict[str, object]:
        first = self.inc(x * gain).relu_()
        down = self.down(first)
        deep = self.mid(self.deep(torch.relu_(down)))
        rise = nn.functional.interpolate(self.rise(deep), size=down.shape[2:])
        up = self.up(torch.cat([rise, down], 1))
        if up.shape[2:] != first.shape[2:]:
            up = nn.functional.interpolate(up, size=first.shape[2:])
        return {"picture": self.out(torch.cat([up, first], 1)).tanh(), "extra": (first.mean(), 3)}


def flat(value: object) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, Tensor)]


def same(left: object, right: object) -> bool:
    return all(torch.equal(x, y) for x, y in zip(flat(left), flat(right), strict=True))


@pytest.fixture
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet().eval()


@torch.no_grad()
@pytest.mark.parametrize(("enc", "dec"), [("down", "up"), ("inc", "out"), ("deep", "mid"), ("deep", "mid.1.0")])
def test_true_f_gives_the_teacher(unet: UNet, enc: str, dec: str) -> None:
    x = torch.randn(2, 3, 13, 18)
    want, before = unet(x, gain=0.5), x.clone()
    cap = graph.Capture(unet, graph.parse_cut(unet, enc, dec), (x,), {"gain": 0.5})
    split = cap.at((x,), {"gain": 0.5})
    carry = split.head(x, gain=0.5)
    kept = [t.clone() for t in flat(carry)]
    for _ in range(2):
        assert same(split.tail(carry, split.middle(carry)), want)
    assert all(torch.equal(a, b) for a, b in zip(flat(carry), kept, strict=True))
    assert torch.equal(x, before)
    assert cap.of(carry) is split


@torch.no_grad()
def test_a_shortcut_pass_runs_nothing_of_the_middle(unet: UNet) -> None:
    x = torch.randn(1, 3, 12, 12)
    split = graph.Capture(unet, graph.parse_cut(unet, "down", "up"), (x,)).at((x,))
    f = split.middle(split.head(x))
    want = unet(x)
    for module in (unet.deep, unet.mid, unet.rise, unet.up):
        for p in module.parameters():
            p.fill_(torch.nan)
    assert same(split.tail(split.head(x), f), want)
    assert not torch.isfinite(split.middle(split.head(x))[0]).any()


@torch.no_grad()
def test_another_size_batch_or_constant_is_captured_anew(unet: UNet) -> None:
    cap = graph.Capture(unet, graph.parse_cut(unet, "down", "up"), (torch.randn(1, 3, 12, 12),))
    for shape, gain in [((1, 3, 12, 12), 1.0), ((2, 3, 9, 15), 1.0), ((1, 3, 12, 12), 2.0)]:
        x = torch.randn(shape)
        split = cap.at((x,), {"gain": gain})
        carry = split.head(x, gain=gain)
        assert same(split.tail(carry, split.middle(carry)), unet(x, gain=gain))


@torch.no_grad()
def test_the_live_teacher_is_read(unet: UNet) -> None:
    x = torch.randn(1, 3, 12, 12)
    split = graph.Capture(unet, graph.parse_cut(unet, "down", "up"), (x,)).at((x,))
    fired = []
    handle = unet.mid[0].register_forward_hook(lambda *_: fired.append("mid"))
    unet.load_state_dict({k: v + 1 for k, v in unet.state_dict().items()})
    carry = split.head(x)
    assert same(split.tail(carry, split.middle(carry)), unet(x))
    handle.remove()
    assert len(fired) == 2


class Leaky(nn.Module):
    """`deep` feeds `f` and, around it, the tail; `gate` follows `a` without real work."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.deep, self.f, self.out = conv(3, 4), conv(4, 4), conv(4, 4), conv(12, 3)
        self.spare = nn.ModuleList([conv(3, 3)])

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.relu(self.a(x))
        deep = self.deep(gate)
        return self.out(torch.cat([self.f(deep), deep, gate], 1))


X = torch.randn(2, 3, 6, 8)


def capture(net: nn.Module, enc: str, dec: str, **options: str) -> graph.Capture:
    return graph.Capture(net, graph.parse_cut(net, enc, dec), (X,), **options)


def test_a_leak_is_named() -> None:
    with pytest.raises(errors.LeakError, match=r"'deep'.*on_leak"):
        capture(Leaky(), "a", "f")


@torch.no_grad()
def test_a_leak_can_be_reused_from_the_reference() -> None:
    net = Leaky()
    split = capture(net, "a", "f", on_leak="reuse").at((X,))
    carry = split.head(X)
    f = split.middle(carry)
    assert len(f) == 2
    assert torch.equal(f[1], net.deep(torch.relu(net.a(X))))
    assert torch.equal(split.tail(carry, f), net(X))
    net.deep.weight.fill_(torch.nan)
    assert split.tail(split.head(X), f).isfinite().all()


def test_wrong_cuts_are_explained(unet: UNet) -> None:
    with pytest.raises(errors.CutOrderError, match="swapped"):
        capture(unet, "up", "down")
    with pytest.raises(errors.CutOrderError, match="same layer"):
        capture(unet, "up", "up")
    with pytest.raises(errors.SpatialMismatchError, match=r"\(2, 6, 3, 4\).*\(2, 8, 2, 2\)"):
        capture(unet, "down", "mid")
    with pytest.raises(errors.UnknownLayerError, match=r"Did you mean 'down'"):
        capture(unet, "downn", "up")
    with pytest.raises(errors.NeverCalledError, match="container"):
        capture(Leaky(), "a", "spare")


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.mid, self.f, self.out = (
            conv(3, 4),
            nn.BatchNorm2d(4),
            conv(4, 4),
            conv(4, 4),
            conv(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.norm(self.conv(x)))
        return self.out(torch.cat([self.f(self.mid(skip)), skip], 1))


def test_a_norm_after_a_leaks_and_the_cut_after_the_norm_does_not() -> None:
    net = Normed().eval()
    with pytest.raises(errors.LeakError, match=r"'norm \(then Normed \(relu\)\)'.*enc_layer='norm', dec_layer='f'"):
        capture(net, "conv", "f")
    assert capture(net, "norm", "f").at((X,)).facts.leaks == ()


@torch.no_grad()
def test_a_capture_can_be_copied_and_pickled(unet: UNet) -> None:
    cap = graph.Capture(unet, graph.parse_cut(unet, "down", "up"), (X,))
    for twin in (copy.deepcopy(cap), pickle.loads(pickle.dumps(cap))):
        assert twin.teacher is not unet
        split = twin.at((X,))
        carry = split.head(X)
        assert same(split.tail(carry, split.middle(carry)), unet(X))


def test_numbers_that_change_from_call_to_call_are_warned_of(unet: UNet) -> None:
    cap = graph.Capture(unet, graph.parse_cut(unet, "down", "up"))
    for i in range(31):
        cap.at((X,), {"gain": float(i)})
    with pytest.warns(UserWarning, match="pass it as a tensor"):
        cap.at((X,), {"gain": 31.0})


@torch.no_grad()
def test_passes_compile_whole(unet: UNet) -> None:
    cap = graph.Capture(unet, graph.parse_cut(unet, "down", "up"), (X,))
    split = cap.at((X,))

    def again(x: Tensor, f: tuple[Tensor, ...]) -> object:
        carry = cap.at((x,), {}).head(x)
        return cap.of(carry).tail(carry, f)

    f = split.middle(split.head(X))
    compiled = torch.compile(again, backend="eager", fullgraph=True)
    assert same(compiled(X, f), unet(X))
