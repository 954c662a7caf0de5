"""The two programs as modules from named tensors to named tensors, and as `torch.export` captures them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from shortcutv2v import ops
from shortcutv2v.deploy.steps import Named, Step, named_leaves
from shortcutv2v.errors import ExportError
from shortcutv2v.graph import Split
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.types import Carry, Reference

__all__ = ["Program", "capture"]


@dataclass
class Program:
    """One of the two programs, with the names of what goes in and out."""

    exported: ExportedProgram
    inputs: Named
    outputs: list[str]
    signals: list[str] = field(default_factory=list)


class _Pass(nn.Module):
    """Positional tensors in, tensors by name out."""

    def __init__(self, model: ShortcutV2V, step: Step, split: Split) -> None:
        super().__init__()
        self.model, self.step, self.split = model, step, split

    def head(self, tensors: tuple[Tensor, ...]) -> tuple[Named, Carry]:
        """Name the inputs, and run the head on what the teacher gets of them."""
        given = dict(zip(self.step.examples, tensors, strict=False))
        args, kwargs = self.step.inputs(given)
        return given, self.split.head(*args, **kwargs)  # not the model's: sizes may be symbols here


class _ReferencePass(_Pass):
    """A full pass: the output, and those tensors of the reference that `kept` names."""

    def __init__(self, model: ShortcutV2V, step: Step, split: Split, kept: list[str]) -> None:
        super().__init__(model, step, split)
        self.kept = kept

    def forward(self, *tensors: Tensor) -> Named:
        """Run the program."""
        given, carry = self.head(tensors)
        f = self.model.middle(carry)
        results = self.step.results(given, self.model.tail(carry, f))
        reference = dict(_reference_leaves(self.model, self.model.make_reference(carry, f)))
        # A copy, because formats do not agree on what two outputs in one memory are.
        return results | {name: x.clone() for name, x in reference.items() if name in self.kept}


class _ShortcutPass(_Pass):
    """A shortcut pass from the reference's tensors. It reads those that `kept` names; no weight of the middle."""

    def __init__(
        self, model: ShortcutV2V, step: Step, split: Split, kept: list[str], reference: Reference, signals: bool
    ) -> None:
        super().__init__(model, step, split)
        self.kept, self.reference, self.signals = kept, reference, signals

    def forward(self, *tensors: Tensor) -> Named:
        """Run the program."""
        given, carry = self.head(tensors)
        reference = self._rebuilt(dict(zip(self.kept, tensors[len(self.step.examples) :], strict=True)), carry)
        signals: Named = {}
        if self.signals:
            predictions = self.model.analyse(reference, carry)
            f = self.model.compose(reference, carry, predictions)
            signals = {f"unexplained_{i}": seen.unexplained for i, seen in enumerate(predictions)}
        else:
            f = self.model.predict(reference, carry)
        return self.step.results(given, self.model.tail(carry, f)) | signals

    def _rebuilt(self, given: Named, carry: Carry) -> Reference:
        """The reference, with something of the right shape where the pass reads nothing."""
        branches = len(carry.a)
        leaves = {
            name: given[name] if name in given else torch.empty(x.shape, dtype=x.dtype, device=x.device)
            for name, x in _reference_leaves(self.model, self.reference)
        }
        spec = pytree.tree_structure((self.reference.f[branches:], self.reference.state))
        leaks, state = pytree.tree_unflatten(list(leaves.values()), spec)
        return Reference(carry.a, (*carry.a, *leaks), state)


def _reference_leaves(model: ShortcutV2V, reference: Reference) -> list[tuple[str, Tensor]]:
    """The tensors of a reference that a block may read, by name."""
    branches = len(reference.a)
    return list(named_leaves("reference", {"leak": reference.f[branches:], "block": reference.state}))


def capture(model: ShortcutV2V, step: Step, *, signals: bool, dynamic: bool) -> tuple[Program, Program]:
    """Export both passes.

    Args:
        model: in eval mode.
        step: what surrounds the passes.
        signals: whether the shortcut program gives `Prediction.unexplained`, one per branch, too.
        dynamic: leave height and width of frames and reference open.

    Raises:
        ExportError: the teacher was captured by hooks, or `torch.export` refuses a pass.
    """
    args, kwargs = step.inputs(step.examples)
    carry = model.head(*args, **kwargs)
    split = model.capture.of(carry)
    if split.strategy == "hooks":
        raise ExportError(
            "the teacher was captured by hooks, which run the teacher's own code: only teachers captured by fx or "
            "export become programs; print(model.cut) says why those did not serve"
        )
    reference = model.make_reference(carry, model.middle(carry))
    leaves = dict(_reference_leaves(model, reference))
    with ops.use("grid"):
        every = _ShortcutPass(model, step, split, list(leaves), reference, signals)
        first = _export(every, {**step.examples, **leaves}, False)
        kept = {name: leaves[name] for name in _read(first) if name in leaves}
        names = list(kept)
        short = _ShortcutPass(model, step, split, names, reference, signals)
        shortcut = _export(short, {**step.examples, **kept}, dynamic)
        full = _export(_ReferencePass(model, step, split, names), dict(step.examples), dynamic)
    shortcut.signals = [name for name in shortcut.outputs if name.startswith("unexplained_")]
    return full, shortcut


def _export(module: _Pass, inputs: Named, dynamic: bool) -> Program:
    shapes = tuple(dict.fromkeys(module.step.sides(x), Dim.AUTO) for x in inputs.values()) if dynamic else None
    try:
        exported = torch.export.export(
            module,
            tuple(inputs.values()),
            dynamic_shapes=None if shapes is None else (shapes,),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=dynamic,
        )
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        raise ExportError(f"torch.export refused the {type(module).__name__.strip('_')}: {line}") from error
    return Program(exported, inputs, list(exported.call_spec.out_spec.context))


def _read(program: Program) -> list[str]:
    """The inputs that the program reads."""
    nodes: dict[str, Any] = {node.name: node for node in program.exported.graph.nodes}
    pairs = zip(program.inputs, program.exported.graph_signature.user_inputs, strict=True)
    return [name for name, node in pairs if nodes[str(node)].users]
