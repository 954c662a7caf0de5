"""Run a teacher in bfloat16 or float16: cast it as asked, or try on the first frames whether bfloat16 pays."""

from __future__ import annotations

import itertools
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError, ShortcutError
from shortcutv2v.passes import placement
from shortcutv2v.player import Player
from shortcutv2v.summary import psnr
from shortcutv2v.translate import from_uint8

__all__ = ["DTYPES", "beside", "cast", "choose", "in_hardware"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions by the name of the option."""

_FRAMES = 4
"""Frames of the trial: enough for a median time, and for an error that a recurrent teacher adds up."""
_LEAST_PSNR = 45.0
"""PSNR in dB to float32 below which the loss would weigh beside that of a block with the usual 40 dB."""
_LARGEST_SHARE = 0.9
"""Largest share of float32's time that is worth any loss of precision; timings vary by a twentieth."""


def cast(adapter: Adapter, name: str) -> None:
    """Cast the adapter's teacher. A block that is loaded or wrapped around it later takes the same precision.

    Args:
        adapter: its teacher is changed in place.
        name: a key of `DTYPES`.

    Raises:
        InputError: an unknown name, or float16 without a GPU.

    Examples:
        >>> adapter = Adapter(torch.nn.Conv2d(3, 3, 3, padding=1))
        >>> cast(adapter, "bfloat16")
        >>> adapter.teacher.weight.dtype
        torch.bfloat16
    """
    if name not in DTYPES:
        raise InputError(f"dtype {name!r}: expected one of {', '.join(DTYPES)}")
    device, _ = placement(adapter.teacher)
    if name == "float16" and device.type == "cpu":
        raise InputError("dtype float16: expected a GPU, but the teacher is on the CPU; use bfloat16")
    adapter.teacher.to(DTYPES[name])


def choose(adapter: Adapter, frames: Iterable[Tensor]) -> str:
    """Cast a float32 teacher to bfloat16 if the device has it in hardware, it is faster, and the teacher stands it.

    The teacher runs on the first frames in both precisions. It stays in bfloat16 if every picture has more than 45 dB
    to its own picture in float32, and a frame takes at most 0.9 of the time.

    Args:
        adapter: its teacher may be changed in place.
        frames: uint8 (3, H, W), the beginning of the video. Up to six are read.

    Returns:
        A line that says what was chosen and why.
    """
    device, present = placement(adapter.teacher)
    if present != torch.float32:
        return f"{_word(present)}: the teacher has no float32 weights"
    if not in_hardware(device):
        return f"float32: this {'GPU' if device.type == 'cuda' else 'processor'} has no bfloat16 in hardware"
    first = list(itertools.islice(frames, _FRAMES + 2))  # adapters make up to two frames themselves
    full, restore = _try(adapter, first), _keep_weights(adapter.teacher)
    adapter.teacher.bfloat16()
    try:
        line = _verdict(full, _try(adapter, first))
    except (RuntimeError, TypeError, ValueError, ShortcutError) as error:
        line = f"float32: the teacher does not run in bfloat16 ({str(error).splitlines()[0]})"
    if line.startswith("float32"):
        restore()
    return line


def beside(adapter: Adapter, target: Adapter, frames: Iterable[Tensor]) -> str:
    """Run two teachers side by side, such as one network in two precisions; return a line with distance and time.

    Args:
        adapter: of the first teacher.
        target: of the teacher that it is compared with.
        frames: uint8 (3, H, W), in order.

    Examples:
        >>> layer = torch.nn.Conv2d(3, 3, 1)
        >>> clip = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
        >>> beside(Adapter(layer), Adapter(layer), clip)[:63]
        'teacher in float32 beside float32: 100.0 dB, at worst 100.0; in'
    """
    names = [_word(placement(each.teacher)[1]) for each in (adapter, target)]
    found, times = list[float](), (list[float](), list[float]())
    own, other = itertools.tee(frames)
    for (made, seconds), (wanted, reference) in zip(_pictures(adapter, own), _pictures(target, other), strict=True):
        found.append(float(psnr(made, wanted)))
        times[0].append(seconds)
        times[1].append(reference)
    if not found:
        return f"teacher in {names[0]}: no frame to compare"
    share = median(times[0]) / median(times[1])
    return (
        f"teacher in {names[0]} beside {names[1]}: {fmean(found):.1f} dB, at worst {min(found, key=_nan_first):.1f}; "
        f"in {share:.2f} of the time"
    )


def _pictures(adapter: Adapter, frames: Iterable[Tensor]) -> Iterator[tuple[Tensor, float]]:
    """Yield picture (1, 3, H, W) and seconds of every frame that the teacher makes, in the teacher's precision."""
    player = Player(adapter, adapter.teacher)
    for frame in frames:
        begun = time.perf_counter()
        with torch.no_grad():
            played = player(from_uint8(frame, adapter.teacher))
            picture = player.picture(played.output).float().cpu()  # waits for the device
        if not played.opening:
            yield picture, time.perf_counter() - begun


def in_hardware(device: torch.device) -> bool:
    """Return False if the device is known to compute bfloat16 in software only.

    Examples:
        >>> in_hardware(torch.device("cpu")) in (True, False)
        True
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64"):
        found = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
        return any(ask() for ask in found if ask is not None)
    return True  # nobody says: the measurement will


def _try(adapter: Adapter, frames: Iterable[Tensor]) -> list[tuple[Tensor, float]]:
    """Return picture and seconds of every frame that the teacher makes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pictures that are not finite: the verdict says so
        return list(_pictures(adapter, frames))


def _verdict(full: list[tuple[Tensor, float]], low: list[tuple[Tensor, float]]) -> str:
    """Return the line that says which precision to take, beginning with its name."""
    if not full:
        return "float32: the teacher makes none of the first frames, so nothing could be measured"
    worst = min((float(psnr(one[0], other[0])) for one, other in zip(low, full, strict=True)), key=_nan_first)
    # The fastest frame after the first, which prepares the network.
    quick, slow = (min(seconds for _, seconds in (pairs[1:] or pairs)) for pairs in (low, full))
    share, frames = quick / slow, f"on the first {len(full)} frames"
    if not worst > _LEAST_PSNR:
        return f"float32: in bfloat16 the teacher has {worst:.1f} dB to itself {frames}, not above {_LEAST_PSNR:.0f}"
    if share > _LARGEST_SHARE:
        return f"float32: bfloat16 takes {share:.2f} of the time {frames}, more than {_LARGEST_SHARE}"
    return f"bfloat16: {share:.2f} of the time of float32, and {worst:.1f} dB to it {frames}"


def _nan_first(value: float) -> float:
    return value if value == value else float("-inf")


def _keep_weights(teacher: nn.Module) -> Callable[[], None]:
    """Return a function that gives the teacher its present parameters and buffers back, bit for bit."""
    parameters = [(parameter, parameter.data) for parameter in teacher.parameters()]
    buffers: Sequence[tuple[dict[str, Any], str, Any]] = [
        (module._buffers, name, buffer) for module in teacher.modules() for name, buffer in module._buffers.items()
    ]

    def restore() -> None:
        for parameter, data in parameters:
            parameter.data = data
        for held, name, buffer in buffers:
            held[name] = buffer

    return restore


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
