"""The layers of a cut: names are checked and normalised before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import CutError, UnknownLayerError, near_matches
from ..teacher import require_module

__all__ = ["Branch", "Cut", "Layer", "parse_cut"]

if TYPE_CHECKING:
    from .facts import Facts

Names = str | tuple[str, ...] | list[Any]


@dataclass(frozen=True)
class Layer:
    """One call of one module.

    Attributes:
        name: dotted name in the teacher, the first one if the module has several.
        call: which of its calls, counted from 0; None where the module is called once.
    """

    name: str
    call: int | None = None

    def __str__(self) -> str:
        return self.name if self.call is None else f"{self.name}:{self.call}"


@dataclass(frozen=True)
class Branch:
    """One pair of cut points: the outputs of `enc` (concatenated along channels) are `a`, that of `dec` is `f`."""

    enc: tuple[Layer, ...]
    dec: Layer

    def __str__(self) -> str:
        return f"{' + '.join(map(str, self.enc))} -> {self.dec}"


@dataclass(frozen=True)
class Cut:
    """A checked cut: its branches, and how token features become maps.

    Attributes:
        branches: one or more pairs of cut points.
        layout: an einops pattern from the features as the layers give them to (B, C, H, W), such as
            `"b (h w) c -> b c h w"`; None where they are (B, C, H, W) already.
        facts: measured by the first capture; None before.
    """

    branches: tuple[Branch, ...]
    layout: str | None = None
    facts: Facts | None = field(default=None, compare=False, repr=False)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers of the cut, each once, in the order of the branches."""
        found = [layer for branch in self.branches for layer in (*branch.enc, branch.dec)]
        return tuple(dict.fromkeys(found))

    @property
    def enc_layer(self) -> Names:
        """The names as `parse_cut` takes them: a text, or a list with one entry (text or tuple) per branch."""
        names = [tuple(map(str, b.enc)) if len(b.enc) > 1 else str(b.enc[0]) for b in self.branches]
        return names[0] if len(names) == 1 and isinstance(names[0], str) else names

    @property
    def dec_layer(self) -> str | list[str]:
        """The names as `parse_cut` takes them: a text, or a list with one entry per branch."""
        names = [str(b.dec) for b in self.branches]
        return names if len(names) > 1 else names[0]

    @property
    def short(self) -> str:
        """The names alone, for messages."""
        return "; ".join(map(str, self.branches))

    def __str__(self) -> str:
        """The names and, after a capture, what the cut saves."""
        return "\n  ".join([self.short, *(self.facts.lines() if self.facts else ())])


def parse_cut(teacher: nn.Module, enc_layer: Names, dec_layer: Names, layout: str | None = None) -> Cut:
    """Check the names of a cut against the teacher's modules.

    Args:
        teacher: the network to cut.
        enc_layer: name of the module whose output is `a`. A tuple of names: their outputs concatenated along
            channels. A list: one entry per branch.
        dec_layer: name of the module whose output is `f`; a list of the same length for several branches.
            `"name:1"` means the second call of a module that is called more than once.
        layout: see `Cut`.

    Returns:
        The cut with every name replaced by the module's first name.

    Raises:
        InputError: the teacher is not a module.
        UnknownLayerError: no module of that name; the message lists near matches.
        CutError: the lists differ in length, a name is not text, or `layout` is not an einops pattern.

    >>> net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    >>> str(parse_cut(net, "0", "2"))
    '0 -> 2'
    """
    require_module(teacher)
    enc = list(enc_layer) if isinstance(enc_layer, list) else [enc_layer]
    dec = list(dec_layer) if isinstance(dec_layer, list) else [dec_layer]
    if len(enc) != len(dec) or not enc:
        raise CutError(
            f"enc_layer names {len(enc)} branches and dec_layer {len(dec)}; give lists of equal length, one entry each "
            "per branch (several encoder names within one branch go into a tuple)"
        )
    known = canonical_names(teacher)
    branches = tuple(_branch(known, e, d) for e, d in zip(enc, dec, strict=True))
    return Cut(branches, None if layout is None else _check_layout(layout))


def canonical_names(teacher: nn.Module) -> dict[str, str]:
    """Every name of every module (aliases included) with the first name of the same module."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(m), name) for name, m in teacher.named_modules(remove_duplicate=False) if name}


def _branch(known: dict[str, str], enc: object, dec: object) -> Branch:
    names = enc if isinstance(enc, tuple) else (enc,)
    if not names:
        raise CutError("an empty tuple was given as enc_layer; name at least one layer")
    if isinstance(dec, tuple):
        raise CutError("a tuple was given as dec_layer; f is the output of one layer. Several branches go into lists")
    return Branch(tuple(_layer(known, n, "enc_layer") for n in names), _layer(known, dec, "dec_layer"))


def _layer(known: dict[str, str], text: object, argument: str) -> Layer:
    if not isinstance(text, str):
        raise CutError(f"{argument}={text!r} must be text: a dotted module name, such as 'decoder.up1'")
    if text in known:
        return Layer(known[text])
    name, colon, number = text.rpartition(":")
    if colon and number.isdigit() and name in known:
        return Layer(known[name], int(number))
    wanted = name if colon and number.isdigit() else text
    raise UnknownLayerError(f"the teacher has no module named {wanted!r} ({argument}). {_advice(known, wanted)}")


def _advice(known: dict[str, str], wanted: str) -> str:
    close = near_matches(wanted, known)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    top = ", ".join(repr(name) for name in [name for name in known if "." not in name][:20])
    return f"Its outermost modules are {top or '(none)'}; list all with [n for n, _ in teacher.named_modules()]"


def _check_layout(layout: str) -> str:
    left, arrow, right = (part.strip() for part in layout.partition("->"))
    names = set(left.replace("(", " ").replace(")", " ").split())
    if not arrow or right.split() != ["b", "c", "h", "w"] or names != {"b", "c", "h", "w"}:
        raise CutError(
            f"layout={layout!r} is not understood; write an einops pattern that ends in '-> b c h w', for example "
            "'b (h w) c -> b c h w' (tokens) or 'b h w c -> b c h w' (channels last)"
        )
    return layout
