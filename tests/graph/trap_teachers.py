"""Small teachers, each with one trap in it."""

from __future__ import annotations

import contextlib
import random
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(i: int, o: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, stride, 1)


class Base(nn.Module):
    """Four convolutions: `enc`, `mid`, `dec` and `out`, with the cut enc -> dec in mind."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mid, self.dec, self.out = conv(3, 4), conv(4, 4), conv(4, 4), conv(4, 3)

    def deep(self, a: Tensor) -> Tensor:
        return self.dec(torch.relu(self.mid(torch.relu(a))))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Any:
        a = self.enc(x)
        return self.out(self.deep(a)) + a.mean()


class StoresFeatures(Base):
    """Keeps what it computes in attributes, lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = None
        self.list: list[Any] = []
        self.dict: dict[str, Any] = {}
        self.deeper: dict[str, list[Any]] = {"here": []}

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        self.last = a
        self.list.append(a)
        self.dict["a"] = a
        self.deeper["here"].append(a)
        return self.out(self.deep(a))  # type: ignore[no-any-return]


class FailsAfterStoring(StoresFeatures):
    """Stores, and then fails."""

    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        raise ArithmeticError("on purpose")


class InPlaceAfterCuts(Base):
    """Overwrites `a`, `f`, a skip and the input."""

    def forward(self, x: Tensor) -> Any:
        x.mul_(0.5)
        a = self.enc(x)
        a.relu_()
        skip = a
        m = self.mid(a)
        m += 1
        f = self.dec(m)
        f.mul_(2)
        skip.add_(f)
        return self.out(skip), f


class InPlaceOnViews(Base):
    """Changes slices, chunks and reshaped views in place."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        flat = a.view(a.shape[0], a.shape[1], -1)
        a[:, :2] += 1
        first, second = self.mid(a).chunk(2, 1)
        second.mul_(0.5)
        f = self.dec(torch.cat([second, first], 1))
        f[:, 0, ::2].zero_()
        return self.out(f) + flat.mean()  # type: ignore[no-any-return]


class InPlaceModules(Base):
    """In-place activation modules on both sides of the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.leaky = nn.ReLU(inplace=True), nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        h = self.act(a)
        f = self.dec(self.leaky(self.mid(h)))
        return self.out(self.act(f) + a)  # type: ignore[no-any-return]


class Pyramid(nn.Module):
    """A leaf that gives several features at once."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(4, 4), conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        return self.three(self.two(torch.relu(self.one(x)))), skip * 2


class TupleLeaf(Base):
    """The skip passes through the middle's module beside the features: a false leak for a coarse look."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = Pyramid()

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        deep, skip = self.pyramid(self.mid(a), a)
        return self.out(self.dec(deep) + skip)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Several features of different depth, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 4), conv(4, 4), conv(4, 4)])

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [x]
        for stage in self.stages:
            found.append(torch.relu(stage(found[-1])))
        return found


class ListEncoder(Base):
    """`a` uses one feature of the encoder; the deeper ones serve the middle only."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.enc = conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, first, _, third = self.encoder(x)
        a = self.enc(first)
        return self.out(self.dec(self.mid(a) + third))  # type: ignore[no-any-return]


class ShapeOnly(Base):
    """The tail reads nothing but the shape of what the middle computes."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        m = self.mid(a)
        f = self.dec(m)
        noise = torch.zeros_like(m) + m.new_ones(m.shape[1], 1, 1)
        return self.out(F.interpolate(f, size=m.shape[2:]) + noise.expand_as(m))  # type: ignore[no-any-return]


class PadsToEight(Base):
    """Pads to a multiple of 8 and crops back; other code for odd sizes."""

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        x = F.pad(x, (0, -w % 8, 0, -h % 8), mode="reflect")
        if h % 2:
            x = x * 2
        return self.out(self.deep(self.enc(x)))[..., :h, :w]  # type: ignore[no-any-return]


class Contexts(Base):
    """Autocast and no_grad inside the teacher."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            a = self.enc(x)
            with torch.autocast("cpu", enabled=False):
                m = self.mid(a.float() + 0.001)
            f = F.conv2d(self.dec(m), self.out.weight)
        with torch.no_grad():
            return f.float().sin()


class DirectForward(Base):
    """Calls `forward` of its modules directly."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc.forward(x)
        return self.out(self.dec.forward(self.mid.forward(a)))  # type: ignore[no-any-return]


class Scripted(nn.Module):
    """Part of the middle, compiled by `torch.jit`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 2  # type: ignore[no-any-return]


class WithScript(Base):
    """Holds a ScriptModule."""

    def __init__(self) -> None:
        super().__init__()
        self.mid = torch.jit.trace(Scripted(conv(4, 4)).eval(), torch.zeros(1, 4, 8, 8))  # type: ignore[assignment]


class RawParameters(Base):
    """The root's own parameters and buffers, and another module's weights, used in functional calls."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(1, 4, 1, 1))
        self.register_buffer("shift", torch.rand(4, 1, 1))
        self.table = torch.rand(1, 4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x) * self.gain + self.shift
        f = self.dec(F.conv2d(a, self.mid.weight, padding=1) + self.table)
        return F.conv2d(f, self.out.weight, self.out.bias, padding=1)


class Twice(Base):
    """`mid` runs twice, and a shared module has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.same = self.dec

    def forward(self, x: Tensor) -> Tensor:
        a = self.mid(torch.relu(self.mid(self.enc(x))))
        return self.out(self.dec(torch.relu(a)))  # type: ignore[no-any-return]


@dataclass
class Output:
    """A plain dataclass."""

    picture: Tensor
    depth: int
    more: Any = None


class Pair(NamedTuple):
    """A named tuple."""

    left: Tensor
    right: Tensor


class Opaque:
    """An object that merely holds tensors."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean
        self.name = "opaque"


class Structured(Base):
    """Takes dicts and keyword inputs with defaults; returns a dataclass full of containers."""

    def forward(self, batch: dict[str, Any], *, scale: float = 1.0, extra: Tensor | None = None) -> Output:
        a = self.enc(batch["frame"] * scale)
        f = self.deep(a + (extra if extra is not None else 0.0))
        out = self.out(f)
        more = {"pair": Pair(out * 2, a), "ordered": OrderedDict(f=f), "none": None, "opaque": Opaque(a.mean())}
        return Output(out, 3, [more, "text"])


class TrainMode(Base):
    """Batch norm on batch statistics and dropout, as pix2pix-like nets run them at test time."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(4), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm(self.enc(x))
        return self.out(self.drop(self.norm(self.deep(self.drop(a)))))  # type: ignore[no-any-return]


class Noise(Base):
    """Draws noise in head, middle and tail."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x + torch.randn_like(x))
        f = self.dec(self.mid(a) + torch.rand(a.shape))
        return self.out(f * torch.rand(1))  # type: ignore[no-any-return]


class PythonNoise(Base):
    """Randomness that torch does not know of."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.deep(self.enc(x))) * random.random()  # type: ignore[no-any-return]


class Remembers(Base):
    """Its output depends on the call before."""

    def __init__(self) -> None:
        super().__init__()
        self.previous: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        if self.previous is not None:
            a = a + self.previous
        self.previous = a
        return self.out(self.deep(a))  # type: ignore[no-any-return]


class Decides(Base):
    """Python code that depends on tensor values: no graph exists."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        a = self.act(self.enc(x))
        m = self.mid(a)
        if float(x.mean()) > 100:
            m = m * 2
        f = self.dec(m)
        for _ in range(int(x.amax().clamp(1, 2).item())):
            a = a + 1
        return self.out(f + a)  # type: ignore[no-any-return]


class Numpy(Base):
    """A detour through NumPy."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        mean = torch.from_numpy(x.mean((2, 3), keepdim=True).detach().numpy() * 2)
        return self.out(self.deep(a)) + mean  # type: ignore[no-any-return]


class Flow(Base):
    """Two encoders and two branches, as vid2vid and VToonify have them."""

    def __init__(self) -> None:
        super().__init__()
        self.enc2, self.fuse, self.rgb, self.skip = conv(3, 4), conv(8, 4), conv(4, 3), conv(4, 4)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        both = self.fuse(torch.cat([torch.relu(self.enc(x)), torch.relu(self.enc2(before))], 1))
        deep = self.mid(both)
        f, rgb = self.dec(deep), self.rgb(deep)
        return self.out(torch.relu(f)) + rgb.tanh(), rgb


class Tokens(nn.Module):
    """A transformer on (B, N, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3)])
        self.out = nn.Linear(8, 48)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2] // 4, x.shape[3] // 4
        t = self.embed(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            t = block(t)
        t = self.out(t).transpose(1, 2).reshape(-1, 48, h, w)
        return F.pixel_shuffle(t, 4)


class Checkpointed(Base):
    """Gradient checkpointing, and an autograd function of its own."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        with contextlib.suppress(ValueError):
            a = torch.utils.checkpoint.checkpoint(self.mid, a, use_reentrant=False)
        return self.out(Double.apply(self.dec(a)))  # type: ignore[no-any-return]


class Double(torch.autograd.Function):
    """Times two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


class ChangesList(Base):
    """A module that rewrites the list it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.fuse = Rewrites()

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        items = [self.mid(a), a]
        self.fuse(items)
        return self.out(self.dec(items[0]) + items[1])  # type: ignore[no-any-return]


class Rewrites(nn.Module):
    """Replaces the entries of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.c = conv(4, 4)

    def forward(self, items: list[Tensor]) -> None:
        items[0] = self.c(items[0])


class Identities(Base):
    """The cut lies on modules that return their input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.end = nn.Identity(), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enc(x)
        f = self.end(self.dec(self.mid(self.start(h))))
        return self.out(f + h)  # type: ignore[no-any-return]


class Nested(nn.Module):
    """The encoder layer lies inside the decoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(OrderedDict(enc=conv(3, 4), mid=conv(4, 4), last=nn.Conv2d(4, 4, 1)))
        self.out = conv(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x).relu_())  # type: ignore[no-any-return]
