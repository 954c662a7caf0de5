"""Read the authors' checkpoint files into our networks, and say plainly what does not fit.

Files are read with `weights_only=True`: tensors and plain containers, no code. Wrappers (`g_ema`, `state_dict`, ...)
and prefixes (`module.`, ...) are taken off, half precision is widened, and entries that carry nothing (counters of
batch norm, statistics of norms that keep none) may be missing or in excess.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v.errors import CheckpointError

__all__ = ["Config", "State", "load_into", "read_file", "read_state", "read_tensor", "untrained"]

State = dict[str, Tensor]
Config = dict[str, Any]

# Where people put the weights, the ones to be preferred first ("g_ema": the averaged generator of VToonify).
_WRAPPERS = ("g_ema", "params_ema", "ema", "state_dict", "model_state_dict", "params", "netG", "model", "g", "net")
_PREFIXES = ("module.", "_orig_mod.", "netG.", "netG0.", "net.", "teacher.")
# Entries that change no output: counters, filters that are always the same, noise that is multiplied by 0.
_IDLE = ("num_batches_tracked", ".kernel", "noises.")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_SHOWN = 6


@contextlib.contextmanager
def untrained() -> Iterator[None]:
    """Inside, fresh weights are the same in every process, so that a block trained on them finds them again."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def read_state(path: str | os.PathLike[str]) -> State:
    """The weights in a file, without wrappers and prefixes, on the CPU.

    Args:
        path: a file of `torch.save`, old or new format, or a `.safetensors` file.

    Raises:
        CheckpointError: no such file; not a checkpoint; a pickle that holds more than tensors and plain containers;
            or no weights inside.
    """
    name = os.fspath(path)
    return _strip(_unwrap(read_file(name), name))


def read_file(path: str | os.PathLike[str]) -> Any:
    """Whatever tensors and plain containers a file holds, on the CPU; `read_state` says what may go wrong."""
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise CheckpointError(f"no checkpoint at {name!r}")
    try:
        if name.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(name)
        return torch.load(name, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name!r} holds more than tensors and plain containers, or is no checkpoint, and is not opened: a pickle "
            "can run any code. If you trust its source, save the bare weights once, in an environment that can open "
            "it: torch.save(torch.load(path, weights_only=False)['g_ema'], 'weights.pt') "
            f"(for 'g_ema' put where the weights are). What stood in the way: {_first_line(error)}"
        ) from error
    except Exception as error:  # torch and safetensors raise many kinds for damaged files
        raise CheckpointError(f"{name!r} cannot be read as a checkpoint: {_first_line(error)}") from error


def read_tensor(path: str | os.PathLike[str]) -> Tensor:
    """The one array in a `.npy`, `.pt` or `.safetensors` file.

    Raises:
        CheckpointError: no such file, a pickle, or not exactly one array.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise CheckpointError(f"no file at {name!r}")
    if name.endswith(".npy"):
        import numpy as np

        try:
            return torch.from_numpy(np.load(name, allow_pickle=False))
        except ValueError as error:
            raise CheckpointError(
                f"{name!r} is pickled and is not opened: a pickle can run any code. If you trust its source, take the "
                "one array out: numpy.save('style.npy', numpy.load(path, allow_pickle=True).item()[name])"
            ) from error
    found = read_file(name)
    if isinstance(found, Mapping) and len(found) == 1:
        found = next(iter(found.values()))
    if not isinstance(found, Tensor):
        raise CheckpointError(f"{name!r} holds a {type(found).__name__}; one array is expected")
    return found


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _is_state(found: Any) -> bool:
    return isinstance(found, Mapping) and bool(found) and all(isinstance(value, Tensor) for value in found.values())


def _unwrap(found: Any, name: str) -> State:
    for _ in range(3):  # wrappers may be nested
        if _is_state(found):
            return dict(found)
        if not isinstance(found, Mapping):
            break
        inside = next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping) and found[key]), None)
        if inside is None:
            break
        found = inside
    keys = f" (its keys: {', '.join(map(str, list(found)[:_SHOWN]))})" if isinstance(found, Mapping) else ""
    raise CheckpointError(f"no weights found in {name!r}{keys}; expected a state_dict, bare or under {_WRAPPERS}")


def _strip(state: State) -> State:
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_into(
    net: nn.Module,
    state: Mapping[str, Tensor],
    infer: Callable[[Mapping[str, Tensor]], Config | None] | None = None,
    ignore: Sequence[str] = (),
) -> nn.Module:
    """Copy weights into a network by name; dtypes are converted to the network's.

    Args:
        net: changed in place, only if everything fits.
        state: what `read_state` returns.
        infer: names the configuration that the weights belong to, for the error message; None where it cannot tell.
        ignore: entries whose key contains one of these and which the network lacks are passed over.

    Returns:
        `net`.

    Raises:
        CheckpointError: something is missing, in excess, or of another shape. The message names it by key and shape.

    >>> load_into(nn.Linear(2, 1), {"weight": torch.zeros(1, 3)})
    Traceback (most recent call last):
        ...
    shortcutv2v.errors.CheckpointError: the weights do not fit this Linear:
      missing: bias (1,)
      other shapes: weight is (1, 3) in the file, (1, 2) in the network
    """
    own = net.state_dict()
    missing = [f"{key} {tuple(own[key].shape)}" for key in own if key not in state and not _has(key, _IDLE)]
    excess = [
        f"{key} {tuple(value.shape)}"
        for key, value in state.items()
        if key not in own and not _has(key, ignore) and not _is_statistic(net, key)
    ]
    shapes = [
        f"{key} is {tuple(state[key].shape)} in the file, {tuple(value.shape)} in the network"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if missing or excess or shapes:
        lines = [f"the weights do not fit this {type(net).__name__}:"]
        for title, entries in (("missing", missing), ("not in the network", excess), ("other shapes", shapes)):
            if entries:
                lines.append(f"  {title}: {_some(entries)}")
        config = infer(state) if infer is not None else None
        if config is not None:
            lines.append(f"  they would fit build_teacher({config})")
        raise CheckpointError("\n".join(lines))
    net.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
    return net


def _has(key: str, parts: Iterable[str]) -> bool:
    return any(part in key for part in parts)


def _is_statistic(net: nn.Module, key: str) -> bool:
    """Whether `key` is an average that old files keep for a norm which uses none."""
    path, _, entry = key.rpartition(".")
    if entry not in _STATISTICS:
        return False
    try:
        module = net.get_submodule(path)
    except AttributeError:
        return False
    return isinstance(module, nn.modules.batchnorm._NormBase)


def _some(entries: list[str]) -> str:
    more = f", and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return ", ".join(entries[:_SHOWN]) + more
