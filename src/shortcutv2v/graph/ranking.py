"""Compare all cuts of a recorded teacher and put them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from .cut import Layer
from .info import info
from .leaks import layer_of, returned_names
from .partition import downstream, upstream
from .reach import Reach
from .traced import Traced

__all__ = ["Price", "Ranking", "Suggestion"]

Shape = tuple[int, ...]
Price = Callable[[Shape, Shape], int]


@dataclass(frozen=True)
class Suggestion:
    """One possible cut.

    Attributes:
        enc_layer: name to give to `wrap` for `a`.
        dec_layer: name to give to `wrap` for `f`.
        saved: the middle's share of the teacher's multiply-adds, 0 to 1: what a shortcut pass does not run.
        net: the same, less the multiply-adds of the Shortcut block; negative if the block costs more than the middle.
        a_shape: (B, C_a, H, W).
        f_shape: (B, C_f, H, W).
        resolution: height of `a` and `f` relative to the picture, such as 0.25.
        leaks: one phrase for each feature that the tail needs beside `f`; such a cut needs `on_leak="reuse"`.
        picture: `a` or `f` is nearly a picture: before any work, after all of it, or of three channels at most. A block
            has little to work with in such an `a`, and nothing after such an `f` repairs its errors.
        to_the_end: `f` comes after all of the work, while `a` is no picture. The tail costs nothing, and a block may
            learn as well there as elsewhere: see docs/quality.md.
        reach: how far around a place the middle looks; None where it could not be measured.
    """

    enc_layer: str
    dec_layer: str
    saved: float
    net: float
    a_shape: Shape
    f_shape: Shape
    resolution: float
    leaks: tuple[str, ...] = ()
    picture: bool = False
    to_the_end: bool = False
    reach: Reach | None = None

    def __str__(self) -> str:
        size = "x".join(map(str, self.f_shape[2:]))
        scale = f"1/{1 / self.resolution:.3g}" if self.resolution <= 1 else f"{self.resolution:.3g}/1"
        text = (
            f"{self.net:6.1%}  {self.enc_layer} -> {self.dec_layer}  {self.a_shape[1]} and {self.f_shape[1]} channels "
            f"of {size} ({scale})"
        )
        text += f", reach {self.reach}" if self.reach else ""
        text += f", {self.remark}" if self.remark else ""
        return text + (f", leaks: {'; '.join(self.leaks)}" if self.leaks else "")

    @property
    def remark(self) -> str:
        """A remark on the place, for lists; empty if there is nothing special about it."""
        return ("to the end" if self.to_the_end else "nearly a picture") if self.picture else ""


class Ranking:
    """The cuts of a recording. Sets of nodes are bits of an integer, so that thousands of pairs are compared quickly.

    Args:
        traced: the recording, down to single layers.
        reaches: how far a change of the input is felt, by layer and call.
        price: see `suggest_cuts`.
    """

    def __init__(
        self, traced: Traced, reaches: Mapping[tuple[str, int], Reach] | None = None, price: Price | None = None
    ) -> None:
        self.traced = traced
        self.reaches = reaches or {}
        self.price = price or (lambda a, f: 0)
        self.nodes = [n for n in traced.graph.nodes if n.op != "get_attr"]
        self.index = {n: i for i, n in enumerate(self.nodes)}
        self.before = [0] * len(self.nodes)
        for i, node in enumerate(self.nodes):
            for source in node.all_input_nodes:
                if source in self.index:
                    self.before[i] |= self.before[self.index[source]] | 1 << self.index[source]
        self.after = [0] * len(self.nodes)
        for i in reversed(range(len(self.nodes))):
            for user in self.nodes[i].users:
                if user in self.index:
                    self.after[i] |= self.after[self.index[user]] | 1 << self.index[user]
        self.live = self.bits(upstream(traced.outputs))
        self.outputs = self.bits(traced.outputs)
        self.heavy = self.bits(n for n in self.nodes if info(n).heavy)
        self.macs = torch.tensor([float(info(n).macs) for n in self.nodes], dtype=torch.float64)
        self.working = self.bits(n for n in self.nodes if info(n).macs)
        self.total = max(1.0, float(self.macs.sum()))
        self.pictures = downstream(n for n in traced.inputs if len(info(n).shape) == 4)
        self.returned = returned_names(traced)
        self.phrases: dict[tuple[int, int], str] = {}

    def bits(self, nodes: Iterable[Node]) -> int:
        """The nodes as a set of bits."""
        found = 0
        for node in nodes:
            if node in self.index:
                found |= 1 << self.index[node]
        return found

    def layers(self) -> dict[int, tuple[str, Reach | None]]:
        """Return the nodes that give maps, each with its layer's outermost name and its reach."""
        repeated = {c.name for c in self.traced.calls if len(self.traced.calls_of(c.name)) > 1}
        counts: dict[str, int] = {}
        found: dict[int, tuple[str, Reach | None]] = {}
        for call in self.traced.calls:
            number = counts[call.name] = counts.get(call.name, -1) + 1
            shape = () if call.node is None else info(call.node).shape
            # A map of one row or column has nothing to align.
            if not call.name or call.node is None or len(shape) != 4 or min(shape[2:]) < 2:
                continue
            i = self.index[call.node]
            name = str(Layer(call.name, number if call.name in repeated else None))
            if self.live >> i & 1 and (i not in found or len(name.split(".")) < len(found[i][0].split("."))):
                found[i] = (name, self.reaches.get((call.name, number)))
        return found

    def places(self) -> list[list[int]]:
        """Return the nodes in groups that are one place: a layer, and its norm, activation and other cheap steps.

        Only the last node of a place may be needed elsewhere, so that a cut at any of them divides the same work.
        """
        place: dict[int, list[int]] = {}
        found = []
        for i, node in enumerate(self.nodes):
            before = {self.index[n] for n in node.all_input_nodes if n in self.index}
            homes = {id(place[b]): place[b] for b in before if b in place}
            home = next(iter(homes.values())) if len(homes) == 1 and before <= set(next(iter(homes.values()))) else []
            shape = info(node).shape
            if home and not self.macs[i] and shape == info(self.nodes[home[0]]).shape:
                home.append(i)
            else:
                home = [i]
                found.append(home)
            place[i] = home
        return [part for group in found for part in self.split_where_needed(group)]

    def split_where_needed(self, group: list[int]) -> list[list[int]]:
        """Cut a group of nodes after every one that something outside needs."""
        inside = self.bits(self.nodes[i] for i in group)
        parts: list[list[int]] = [[]]
        for i in group:
            parts[-1].append(i)
            users = self.bits(self.nodes[i].users) & self.live
            if users & ~inside or self.outputs >> i & 1:
                parts.append([])
        return [part for part in parts if part]

    def ranked(self) -> list[Suggestion]:
        """Return all cuts, the best first."""
        layers = self.layers()
        sizes: dict[Any, list[int]] = {}
        for place in self.places():
            named = [i for i in place if i in layers]
            if named:
                shape = info(self.nodes[named[-1]]).shape  # windows of attention may be a batch
                sizes.setdefault((shape[0], *shape[2:]), []).append(named[-1])
        found = [s for group in sizes.values() for s in self.group(sorted(group), layers)]
        return sorted(found, key=lambda s: (bool(s.leaks), s.picture, -s.net))

    def group(self, group: list[int], layers: dict[int, tuple[str, Reach | None]]) -> list[Suggestion]:
        """Return all pairs of one size. One matrix product gives the multiply-adds of every middle."""
        around = [self.bits(upstream(self.traced.outputs, [self.nodes[f]])) for f in group]
        ends = [(self.before[f] | 1 << f) & ~skip for f, skip in zip(group, around, strict=True)]
        end, start = self.matrix(ends), self.matrix([self.before[a] | 1 << a for a in group])
        saved = (end @ self.macs)[:, None] - (end * self.macs) @ start.T
        found = []
        for row, f in enumerate(group):
            exits = self.exits(f)
            for column, a in enumerate(group):
                if self.before[f] >> a & 1:
                    found.append(self.suggestion(a, f, layers, float(saved[row, column]), self.leaks(a, f, exits)))
        return found

    def suggestion(
        self, a: int, f: int, layers: dict[int, tuple[str, Reach | None]], saved: float, leaks: tuple[str, ...]
    ) -> Suggestion:
        """One cut, from node `a` to node `f`."""
        (enc, begin), (dec, end) = layers[a], layers[f]
        shapes = info(self.nodes[a]).shape, info(self.nodes[f]).shape
        tall = max([info(n).shape[-2] for n in self.traced.inputs if len(info(n).shape) == 4], default=0)
        after = self.after[f] & self.live
        early = not (self.before[a] | 1 << a) & self.working or shapes[0][1] <= 3
        late = not after & self.working
        return Suggestion(
            enc,
            dec,
            saved / self.total,
            (saved - self.price(*shapes)) / self.total,
            *shapes,
            resolution=shapes[1][2] / (tall or shapes[1][2]),
            leaks=leaks,
            picture=early or late or shapes[1][1] <= 3,
            to_the_end=late and not early,
            reach=end.since(begin) if begin and end else None,
        )

    def matrix(self, rows: list[int]) -> Tensor:
        """Sets of bits as rows of zeros and ones."""
        width = (len(self.nodes) + 7) // 8
        flat = torch.frombuffer(bytearray(b"".join(r.to_bytes(width, "little") for r in rows)), dtype=torch.uint8)
        spread = flat.reshape(len(rows), width, 1) >> torch.arange(8, dtype=torch.uint8) & 1
        return spread.reshape(len(rows), -1)[:, : len(self.nodes)].double()

    def exits(self, f: int) -> int:
        """Return the nodes that feed `f` and also a node that does not. Those that depend on `a` leak."""
        inner = self.before[f] | 1 << f
        found = self.before[f] & self.outputs
        for i in _ones(self.before[f]):
            users = self.bits(self.nodes[i].users)
            if users & ~inner & self.live:
                found |= 1 << i
        return found

    def leaks(self, a: int, f: int, exits: int) -> tuple[str, ...]:
        """Phrases for what goes around `f`, the first few."""
        found = [i for i in _ones(self.after[a] & exits) if self.after[a] & (self.before[i] | 1 << i) & self.heavy]
        return tuple(dict.fromkeys(self.phrase(i, f) for i in found[:8]))

    def phrase(self, leak: int, f: int) -> str:
        """The layer of a leak, and who needs it."""
        if (leak, f) not in self.phrases:
            node = self.nodes[leak]
            layer = layer_of(node, self.pictures)
            if node in self.returned:
                self.phrases[leak, f] = f"{layer}, returned as {' and '.join(self.returned[node])}"
            else:
                around = self.after[leak] & ~(self.before[f] | 1 << f) & self.live & self.heavy
                reader = next((info(self.nodes[i]).owner for i in _ones(around)), "the tail")
                self.phrases[leak, f] = f"{layer}, read by {reader}"
        return self.phrases[leak, f]


def _ones(bits: int) -> Iterable[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
