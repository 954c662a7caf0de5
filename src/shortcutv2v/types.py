"""The two containers that travel between the parts: what the head hands on, and what a reference is.

Both are pytrees (`torch.utils._pytree`), so that they can be moved, stacked, compiled over and exported
with `tree_map` like any nested tuple of tensors.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["Carry", "Reference", "fits"]


@dataclass(frozen=True)
class Carry:
    """Features that the head hands on.

    Attributes:
        a: one feature map of shape (B, C_a, H, W) per branch (the outputs of a tuple of `enc_layer`s are
            concatenated along C).
        kept: everything else that the middle or the tail needs, such as encoder skips or the inputs themselves.
        signature: which capture the carry belongs to (input shapes, dtypes, structure); not a tensor, static
            for `tree_map`.
    """

    a: tuple[Tensor, ...]
    kept: tuple[Any, ...]
    signature: Hashable = None


@dataclass(frozen=True)
class Reference:
    """Features that a full pass leaves for the shortcut passes after it.

    Attributes:
        a: `a_ref`, one (B, C_a, H, W) per branch.
        f: `f_ref`, one (B, C_f, H, W) per branch; after them the leaking features kept by `on_leak="reuse"`.
        state: per branch, whatever the block has computed from `a_ref` and `f_ref` alone, so that it is
            computed once per refresh and not once per frame.
    """

    a: tuple[Tensor, ...]
    f: tuple[Tensor, ...]
    state: tuple[Any, ...]


def fits(reference: Reference | Carry, carry: Carry) -> bool:
    """True if a block can predict from `reference` for `carry`: same shapes and devices, dtypes that serve.

    The reference's dtype may be narrower than the current one, and under autocast any dtype serves.
    """
    made, current = ([(tuple(x.shape), x.device) for x in of.a] for of in (reference, carry))
    if made != current:
        return False
    autocast = any(torch.is_autocast_enabled(x.device.type) for x in carry.a if x.device.type != "meta")
    pairs = zip(reference.a, carry.a, strict=True)
    return autocast or all(torch.promote_types(r.dtype, a.dtype) == a.dtype for r, a in pairs)


def _named(container: Carry | Reference, *names: str) -> list[tuple[pytree.KeyEntry, Any]]:
    return [(pytree.GetAttrKey(name), getattr(container, name)) for name in names]


# With keys, because torch.export names its inputs by them.
pytree.register_pytree_node(
    Carry,
    lambda carry: ([carry.a, carry.kept], carry.signature),
    lambda children, signature: Carry(*(*children, signature)),
    serialized_type_name="shortcutv2v.types.Carry",
    flatten_with_keys_fn=lambda carry: (_named(carry, "a", "kept"), carry.signature),
)
pytree.register_pytree_node(
    Reference,
    lambda ref: ([ref.a, ref.f, ref.state], None),
    lambda children, _: Reference(*children),
    serialized_type_name="shortcutv2v.types.Reference",
    flatten_with_keys_fn=lambda ref: (_named(ref, "a", "f", "state"), None),
)
