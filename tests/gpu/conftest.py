"""A GPU without one: tensors without values that claim to be on `cuda`; mixed with another device they raise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

CUDA = torch.device("cuda", 0)


class FakeGPU(FakeTensorMode):
    """Fake tensors, and an answer wherever code asks for a value.

    Answers are those of a healthy video: tensors are equal and finite, numbers are 1. So `wrap()` finds that a split
    gives the teacher's output, and a stream keeps its reference.
    """

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return super().dispatch(func, types, args, kwargs or {})
        except DataDependentOutputException:
            if func is torch.ops.aten.equal.default:
                return True
            return {torch.bool: True}.get(args[0].dtype, 1.0 if args[0].is_floating_point() else 1)


def move(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` that replaces parameters: the original swaps them in place, which fails for fake tensors."""
    for child in module.children():
        child._apply(change)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(change(parameter.detach()), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else change(buffer)
    return module


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A GPU as the current machine's, on its default stream."""
    if Version(torch.__version__) < Version("2.10"):
        pytest.skip("fake tensors of this torch ask for a real GPU")
    for name in ("current_stream", "default_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda device=None: "the default stream")
    monkeypatch.setattr(nn.Module, "_apply", move)
    with FakeGPU(allow_non_fake_inputs=True):  # the states of random generators are real
        yield CUDA
