"""A fingerprint of a teacher: enough to tell it from any other, and to recognise it in half precision."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["KINDS", "differences", "fingerprint"]

KINDS: dict[str, type] = {"class": str, "parameters": int, "structure": str, "values": list}
"""Types of the fingerprint's entries."""

_SAMPLES = 1 << 16
_BUCKETS = 32
_TOLERANCE = 0.006
"""Largest relative distance of one tensor to itself after a cast: bfloat16 gives 0.002, noise of 1 % gives 0.01."""
_TINY = 1e-7
"""Largest absolute distance besides: float16 rounds the smallest values by more than the tolerance, at last to zero."""


@torch.no_grad()
def fingerprint(teacher: nn.Module) -> dict[str, Any]:
    """Return a JSON-ready description of a teacher: names, shapes and values of its parameters.

    Buffers are left out, because running statistics change with use.

    Examples:
        >>> fingerprint(nn.Conv2d(3, 8, 3))["parameters"]
        224
    """
    digest, values, count = hashlib.sha256(), [], 0
    for name, parameter in teacher.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        count += parameter.numel()
        values.append(base64.b64encode(_sketch(parameter.detach()).numpy().tobytes()).decode())
    return {"class": type(teacher).__name__, "parameters": count, "structure": digest.hexdigest(), "values": values}


def differences(saved: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Return what tells two teachers apart, or None if `found` is the teacher `saved`, maybe in another precision.

    Raises:
        ValueError: `saved` was not made by `fingerprint`.
    """
    if saved["structure"] != found["structure"]:
        return (
            f"another teacher: a {saved['class']} of {saved['parameters']} parameters, "
            f"this is a {found['class']} of {found['parameters']}"
        )
    one, other = ([_decode(text) for text in of["values"]] for of in (saved, found))
    if all(_near(a, b) for a, b in zip(one, other, strict=True)):
        return None
    return (
        f"a {saved['class']} of the same shape but with other weights: load the teacher's own checkpoint first, as it "
        "was in training"
    )


def _sketch(parameter: Tensor) -> Tensor:
    """Return the root mean square of a tensor, and sums of its values with fixed pseudo-random signs.

    The distance between the sums of two tensors estimates the distance between the tensors, and thus sees flipped
    signs, permuted rows and noise. Values are sampled at an odd stride, so that all places of a kernel are met.
    """
    flat = parameter.flatten()
    flat = torch.view_as_real(flat).flatten() if flat.is_complex() else flat
    flat = flat[:: (flat.numel() // _SAMPLES) | 1].double().cpu()
    place = torch.arange(flat.numel()) * 0x9E3779B1 & 0xFFFFFFFF
    place = (place ^ place >> 15) * 0x85EBCA77 & 0xFFFFFFFF
    sign = 1 - 2 * (place >> 20 & 1)
    sums = torch.zeros(_BUCKETS, dtype=torch.double).index_add_(0, (place >> 21) % _BUCKETS, flat * sign)
    size = max(1, flat.numel()) ** 0.5
    return torch.cat((flat.norm().view(1), sums)).div(size).float()


def _decode(text: Any) -> Tensor:
    try:
        raw = base64.b64decode(text, validate=True)
    except (TypeError, binascii.Error):
        raise ValueError("an entry of `values` is no text in base64") from None
    if len(raw) != 4 * (1 + _BUCKETS):
        raise ValueError("an entry of `values` is of another length")
    return torch.frombuffer(bytearray(raw), dtype=torch.float32)


def _near(a: Tensor, b: Tensor) -> bool:
    return bool((a[1:] - b[1:]).norm() <= _TOLERANCE * a[0] + _TINY)
