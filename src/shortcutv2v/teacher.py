"""Checks of the user's teacher: it is a module, and in the mode that is meant."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Hashable, Iterator
from functools import lru_cache
from types import CodeType
from weakref import WeakKeyDictionary

import torch
from torch import nn

from shortcutv2v.errors import InputError

__all__ = ["check_teacher", "mode_dependent", "require_module", "say_once"]

_said: WeakKeyDictionary[nn.Module, set[Hashable]] = WeakKeyDictionary()
_RATES = ("p", "drop_prob", "drop_rate", "dropout")
_NAMED = 4
_MODE = "train mode"


def check_teacher(teacher: object, *, train_mode: bool = False) -> None:
    """Check that the teacher is a module, and warn once per teacher if it seems to be in train mode by mistake.

    Args:
        teacher: the network.
        train_mode: train mode is meant, as in networks like pix2pix: give no warning, now or later.

    Raises:
        InputError: it is no `nn.Module`; the message says what to give instead.

    Warns:
        UserWarning: modules in train mode make it give other pictures than in eval mode.
    """
    module = require_module(teacher)
    names = [] if train_mode else list(mode_dependent(module))
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        say_once(
            module,
            _MODE,
            f"the teacher is in train mode, in which these of its modules act differently: {', '.join(names[:_NAMED])}"
            f"{more}. Call teacher.eval() first, or set train_mode = True on its Adapter if train mode is meant",
        )
    elif train_mode:
        _said.setdefault(module, set()).add(_MODE)
    else:
        _said.get(module, set()).discard(_MODE)


def say_once(teacher: nn.Module, key: Hashable, message: str) -> None:
    """Give a warning that concerns a teacher, unless one with this key was given before."""
    said = _said.setdefault(teacher, set())
    if key not in said:
        said.add(key)
        warnings.warn(message, stacklevel=4)


def require_module(teacher: object) -> nn.Module:
    """Return the teacher if it is a module.

    Raises:
        InputError: it is not; the message says what to give instead.
    """
    if isinstance(teacher, nn.Module):
        return teacher
    found = f"the teacher is a {type(teacher).__name__}, but must be a torch.nn.Module"
    if isinstance(teacher, (str, os.PathLike)):
        raise InputError(f"{found}: build the network and load the weights from {str(teacher)!r} into it")
    held = getattr(teacher, "__dict__", {}).items()
    inner = [f".{k}" for k, v in held if isinstance(v, nn.Module) and not k.startswith("_")]
    if inner:  # a descriptor of spandrel, a pipeline of diffusers
        raise InputError(f"{found}: give its {' or '.join(inner[:_NAMED])}")
    if callable(getattr(teacher, "module", None)):  # torch.export.ExportedProgram
        raise InputError(f"{found}: give the network that it was exported from")
    if isinstance(teacher, type):
        raise InputError(f"{found}: give an instance, such as {teacher.__name__}()")
    if isinstance(teacher, dict):
        raise InputError(f"{found}: load the weights into the network first, with load_state_dict()")
    hint = ": put a function into a module whose forward() calls it" if callable(teacher) else ""
    raise InputError(f"{found}{hint}")


def mode_dependent(teacher: nn.Module) -> Iterator[str]:
    """Yield name and class of each module that is in train mode and would act differently in eval mode.

    A module acts by its mode if its code reads `self.training`: batch norm, dropout, and layers of the user's own.

    Examples:
        >>> list(mode_dependent(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.0))))
        ['1 (BatchNorm2d)']
    """
    for name, module in teacher.named_modules():
        if module.training and _depends_on_mode(module):
            yield f"{name or 'the teacher itself'} ({_class_name(module)})"


def _depends_on_mode(module: nn.Module) -> bool:
    if any(type(hook).__name__ == "SpectralNorm" for hook in module._forward_pre_hooks.values()):
        return True
    if isinstance(module, torch.jit.ScriptModule):  # its code cannot be read
        return any(word in _class_name(module) for word in ("BatchNorm", "Dropout"))
    if type(module).__module__ == "torch.nn.modules.transformer":
        return False  # reads the mode to choose a kernel; its dropout layers are modules of their own
    if isinstance(module, nn.modules.batchnorm._NormBase) and not module.track_running_stats:
        return False
    own = "Drop" in type(module).__name__ or type(module).__module__.startswith("torch.nn.")
    rates = [getattr(module, name, None) for name in _RATES]
    if own and any(isinstance(rate, int | float) and rate == 0 for rate in rates):
        return False
    return _reads_mode(type(module))  # type: ignore[arg-type]  # mypy finds no hash of a class


@lru_cache(maxsize=1024)
def _reads_mode(kind: type) -> bool:
    return any("training" in _names_in(code) for code in _code_of(kind))


def _class_name(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))


def _code_of(kind: type) -> Iterator[CodeType]:
    """The code of the methods that a class adds to `nn.Module`."""
    for base in kind.__mro__:
        if base is nn.Module:
            return
        for name, member in vars(base).items():
            if inspect.isfunction(member) and name not in ("__init__", "train", "eval"):
                yield inspect.unwrap(member).__code__


def _names_in(code: CodeType) -> set[str]:
    inner = (_names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)
