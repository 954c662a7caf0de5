"""The four operators: their contract, their checks, and the call of an implementation (one module each).

Shared conventions. Offsets are in pixels, in the order (dy, dx), one pair per tap, taps in row-major order of the
kernel, as in `torchvision.ops.deform_conv2d`. Values outside the feature map are zero, and bilinear interpolation
reaches one pixel into that zero border. "Same" padding: the output has the height and width of the offsets. Under
autocast, features and weights take the autocast dtype, as in a convolution. Positions are computed in float32 at least,
because bfloat16 cannot tell pixel 300 from pixel 301. The output is NaN where an offset is not finite.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from shortcutv2v.errors import InputError
from shortcutv2v.ops import grid, plain, rows
from shortcutv2v.ops.selection import choose

__all__ = ["adabd", "align", "deform", "warp"]


class _Implementation(Protocol):
    """The functions of an implementation's module; the operators below document their arguments."""

    def blend(self, f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor: ...

    def warp(self, f: Tensor, offset: Tensor, border: int) -> Tensor: ...


def adabd(
    f_ref: Tensor, a_t: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, *, implementation: str | None = None
) -> Tensor:
    r"""Adaptive blending and deformation, equation 5 of the paper.

    .. math:: \hat f(p) = \sum_k w(k) \{ a_t(p + k) m(k) + f_{ref}(p + k + \Delta p(k)) (1 - m(k)) \}

    Both terms share the weight, so the sampled columns are blended first and multiplied once.

    Args:
        f_ref: reference feature, aligned and reduced, of shape (B, C, H, W).
        a_t: current encoder feature, reduced, of shape (B, C, H, W).
        offset: pixels (dy, dx) per tap, of shape (B, 2*K, H, W) with K = k*k.
        mask: share of `a_t` per tap, in [0, 1], of shape (B, K, H, W).
        weight: of shape (C_out, C, k, k), k odd.
        implementation: one of `ops.implementations()`; None chooses by device and dtype.

    Returns:
        `f_hat` of shape (B, C_out, H, W), in the promoted dtype of `f_ref`, `a_t` and `weight`.

    Raises:
        InputError: a shape does not fit, or no implementation has that name.

    Examples:
        >>> f, a, w = torch.rand(1, 2, 5, 6), torch.rand(1, 2, 5, 6), torch.rand(4, 2, 3, 3)
        >>> offset, mask = torch.zeros(1, 18, 5, 6), torch.ones(1, 9, 5, 6)
        >>> out = adabd(f, a, offset, mask, w)  # with mask 1, a plain convolution of the current feature
        >>> torch.allclose(out, torch.nn.functional.conv2d(a, w, padding=1), atol=1e-6)
        True
    """
    _check_columns("adabd", f_ref, offset, weight)
    _expect("adabd", "a_t", a_t, tuple(f_ref.shape))
    _expect("adabd", "mask", mask, (f_ref.shape[0], weight.shape[-1] ** 2, *f_ref.shape[2:]))
    return _blend(f_ref, a_t, offset, mask, weight, implementation)


def deform(f: Tensor, offset: Tensor, weight: Tensor, *, implementation: str | None = None) -> Tensor:
    r"""Deformable convolution without modulation, :math:`\sum_k w(k) f(p + k + \Delta p(k))`, for the alignment loss.

    Args:
        f: of shape (B, C, H, W).
        offset: pixels (dy, dx) per tap, of shape (B, 2*K, H, W) with K = k*k.
        weight: of shape (C_out, C, k, k), k odd.
        implementation: one of `ops.implementations()`; None chooses by device and dtype.

    Returns:
        A feature of shape (B, C_out, H, W).

    Raises:
        InputError: a shape does not fit, or no implementation has that name.

    Examples:
        >>> f, w = torch.rand(1, 2, 5, 6), torch.rand(4, 2, 3, 3)
        >>> out = deform(f, torch.zeros(1, 18, 5, 6), w)
        >>> torch.allclose(out, torch.nn.functional.conv2d(f, w, padding=1), atol=1e-6)
        True
    """
    _check_columns("deform", f, offset, weight)
    return _blend(f, None, offset, None, weight, implementation)


def align(f: Tensor, offset: Tensor, weight: Tensor, *, implementation: str | None = None) -> Tensor:
    r"""Global alignment (section 3.2): one offset per position, applied to all taps of the kernel.

    :math:`\sum_k w(k) f(p + k + \Delta p)`, equal to a deformable convolution whose offset is repeated for every tap.
    Interpolation is linear and the offset is the same for all taps, so convolving first and warping the result once
    gives the same numbers. The convolution is padded by k - 1, so that positions just outside the frame are right, too.
    It depends on `f` alone: a caller may keep `conv2d(f, weight, padding=k - 1)` and call `warp(..., border=k // 2)`.

    Args:
        f: of shape (B, C, H, W).
        offset: pixels (dy, dx), of shape (B, 2, H, W).
        weight: of shape (C_out, C, k, k), k odd.
        implementation: one of `ops.implementations()`; None chooses by device and dtype.

    Returns:
        A feature of shape (B, C_out, H, W).

    Raises:
        InputError: a shape does not fit, or no implementation has that name.

    Examples:
        >>> f, offset, w = torch.rand(1, 2, 5, 6), torch.randn(1, 2, 5, 6), torch.rand(4, 2, 3, 3)
        >>> torch.allclose(align(f, offset, w), deform(f, offset.repeat(1, 9, 1, 1), w), atol=1e-5)
        True
    """
    _check_weight("align", f, weight)
    _expect("align", "offset", offset, (f.shape[0], 2, *f.shape[2:]))
    if choose(implementation, f) == "reference":
        repeated = offset.repeat(1, weight.shape[-1] ** 2, 1, 1)
        return _blend(f, None, repeated, None, weight, implementation)
    reach = int(weight.shape[-1]) // 2  # an int under torch.compile, too, whatever is dynamic there
    f, weight = _same_dtype(f, weight)
    return warp(F.conv2d(f, weight, padding=2 * reach), offset, border=reach, implementation=implementation)


def warp(f: Tensor, offset: Tensor, *, border: int = 0, implementation: str | None = None) -> Tensor:
    r"""Bilinear warp, :math:`f(p + \Delta p)`, zero outside; a zero offset returns `f` bit for bit.

    Args:
        f: of shape (B, C, H + 2*border, W + 2*border).
        offset: pixels (dy, dx), of shape (B, 2, H, W).
        border: number of known pixels of `f` on each side of the frame that the offsets belong to.
        implementation: one of `ops.implementations()`; None chooses by device and dtype.

    Returns:
        A feature of shape (B, C, H, W).

    Raises:
        InputError: a shape does not fit, or no implementation has that name.

    Examples:
        >>> f = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> warp(f, torch.tensor([0.0, 0.5]).view(1, 2, 1, 1).expand(1, 2, 1, 3))
        tensor([[[[1.5000, 2.5000, 1.5000]]]])
    """
    _check_feature("warp", "f", f)
    b, _, h, w = f.shape
    if border < 0 or 2 * border >= min(h, w):
        raise InputError(
            f"`ops.warp`: `border` is {border}, but `f` of {h}x{w} must have at least one pixel inside its border."
        )
    _expect("warp", "offset", offset, (b, 2, h - 2 * border, w - 2 * border))
    module = _module(choose(implementation, f), f)
    with _no_autocast(f.device.type):
        return module.warp(f, offset, border)


def _blend(
    f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor, implementation: str | None
) -> Tensor:
    module = _module(choose(implementation, f), f)
    if a is None:
        f, weight = _same_dtype(f, weight)
    else:
        f, a, weight = _same_dtype(f, a, weight)
    with _no_autocast(f.device.type):
        return module.blend(f, a, offset, mask, weight)


def _module(name: str, f: Tensor) -> _Implementation:
    """Return the implementation of that name, or `plain` if it cannot run on this device or under a transform."""
    if _transformed():
        return plain
    if name == "reference":
        from shortcutv2v.ops import reference  # imports torchvision, which takes a second

        return reference
    if name == "fused" and f.device.type == "cuda":
        from shortcutv2v.ops import fused  # imports triton

        return fused
    if name == "grid":
        return grid
    return rows if name == "rows" and f.device.type == "cpu" else plain


def _transformed() -> bool:
    """True if `torch.func` or forward-mode differentiation is active: they do not support custom operators.

    That includes torchvision's, whose forward-mode derivatives they take to be zero.
    """
    if torch.compiler.is_compiling():
        return False
    return bool(torch._C._are_functorch_transforms_active()) or forward_ad._current_level >= 0


def _same_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast to one dtype: that of autocast if it is on (float64 stays, as in torch), else the promoted dtype."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    device = tensors[0].device.type
    if dtype != torch.float64 and _knows_autocast(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return tuple(tensor.to(dtype) for tensor in tensors)


def _no_autocast(device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, enabled=False) if _knows_autocast(device) else nullcontext()


def _knows_autocast(device: str) -> bool:
    # `torch.amp.is_autocast_available` breaks the graph of torch.compile before torch 2.12.
    return device != "meta"


def _check_columns(name: str, f: Tensor, offset: Tensor, weight: Tensor) -> None:
    _check_weight(name, f, weight)
    _expect(name, "offset", offset, (f.shape[0], 2 * weight.shape[-1] ** 2, *f.shape[2:]))


def _check_weight(name: str, f: Tensor, weight: Tensor) -> None:
    _check_feature(name, "f", f)
    ok = weight.dim() == 4 and weight.shape[1] == f.shape[1] and weight.shape[0] > 0
    if not ok or weight.shape[2] != weight.shape[3] or weight.shape[3] % 2 == 0:
        raise InputError(
            f"`ops.{name}`: `weight` has shape {tuple(weight.shape)}, but must be (C_out, {f.shape[1]}, k, k) "
            "with k odd; its second size is the number of channels of the feature."
        )


def _check_feature(name: str, argument: str, f: Tensor) -> None:
    if f.dim() != 4 or not f.is_floating_point() or min(f.shape[1:]) < 1:
        raise InputError(
            f"`ops.{name}`: `{argument}` must be a floating point tensor (B, C, H, W) with C, H and W at least 1, "
            f"got {f.dtype} {tuple(f.shape)}."
        )


def _expect(name: str, argument: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        msg = f"`ops.{name}`: `{argument}` has shape {tuple(tensor.shape)}, but must have shape {shape}."
        raise InputError(msg)
