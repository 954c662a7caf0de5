"""The programs as modules from named tensors to named tensors, and as `torch.export` captures them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from shortcutv2v import ops
from shortcutv2v.deploy.steps import AdapterStep, Named, TeacherStep, named_leaves
from shortcutv2v.errors import ExportError
from shortcutv2v.graph import Split
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.types import Carry, Reference

__all__ = ["Program", "capture"]


@dataclass
class Program:
    """One of the programs, with the names of what goes in and out."""

    exported: ExportedProgram
    inputs: Named
    outputs: list[str]


class _Pass(nn.Module):
    """One of the model's passes: positional tensors in, tensors by name out; `kept` names the reference's tensors."""

    def __init__(self, model: ShortcutV2V, step: TeacherStep, split: Split, kept: list[str]) -> None:
        super().__init__()
        self.model, self.step, self.split, self.kept = model, step, split, kept

    def head(self, tensors: tuple[Tensor, ...]) -> tuple[Named, Carry, Named]:
        """Name the inputs, run the head on what the teacher gets of them, and name the conditions of the reference."""
        given = dict(zip(self.step.examples, tensors, strict=False))
        args, kwargs = self.step.inputs(given)
        carry = self.split.head(*args, **kwargs)  # not the model's: sizes may be symbols here
        return given, carry, {f"condition_{i}": x.clone() for i, x in enumerate(self.split.conditions(carry))}


class _ReferencePass(_Pass):
    """A full pass: the output, and what the shortcut program reads of the reference."""

    def forward(self, *tensors: Tensor) -> Named:
        """Run the program."""
        given, carry, conditions = self.head(tensors)
        f = self.model.middle(carry)
        results = self.step.results(given, self.model.tail(carry, f))
        reference = dict(_leaves(self.model, self.model.make_reference(carry, f)))
        # A copy, because formats do not agree on what two outputs in one memory are.
        return results | {name: reference[name].clone() for name in self.kept} | conditions


class _ShortcutPass(_Pass):
    """A shortcut pass from the tensors of the reference, and the signals for policies. No weight of the middle."""

    reference: Reference
    signals: bool

    def forward(self, *tensors: Tensor) -> Named:
        """Run the program."""
        given, carry, conditions = self.head(tensors)
        reference = self._rebuilt(dict(zip(self.kept, tensors[len(self.step.examples) :], strict=True)), carry)
        if not self.signals:
            output = self.model.tail(carry, self.model.predict(reference, carry))
            return self.step.results(given, output) | conditions
        predictions = self.model.analyse(reference, carry)
        output = self.model.tail(carry, self.model.compose(reference, carry, predictions))
        signals = {f"unexplained_{i}": seen.unexplained for i, seen in enumerate(predictions)}
        return self.step.results(given, output) | signals | conditions

    def _rebuilt(self, given: Named, carry: Carry) -> Reference:
        """The reference, with something of the right shape where the pass reads nothing."""
        branches = len(carry.a)
        own = _leaves(self.model, self.reference)
        leaves = [given[name] if name in given else torch.empty(x.shape, dtype=x.dtype) for name, x in own]
        spec = pytree.tree_structure((self.reference.f[branches:], self.reference.state))
        leaks, state = pytree.tree_unflatten(leaves, spec)
        return Reference(carry.a, (*carry.a, *leaks), state)


class _Opening(nn.Module):
    """A frame that the adapter paints itself."""

    def __init__(self, step: AdapterStep, index: int) -> None:
        super().__init__()
        self.step, self.index, self.names = step, index, list(step.opening_examples(index))

    def forward(self, *tensors: Tensor) -> Named:
        """Run the program."""
        return self.step.opening(self.index, dict(zip(self.names, tensors, strict=True)))


def _leaves(model: ShortcutV2V, reference: Reference) -> list[tuple[str, Tensor]]:
    """The tensors of a reference that a block may read, by name."""
    branches = len(reference.a)
    return list(named_leaves("reference", {"leak": reference.f[branches:], "block": reference.state}))


def capture(model: ShortcutV2V, step: TeacherStep, *, signals: bool, dynamic: bool) -> dict[str, Program]:
    """Return the programs `reference` and `shortcut`, and `opening_0` and so on for frames that the adapter paints.

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
    leaves = dict(_leaves(model, reference))

    def shortcut(kept: Named, dynamic: bool) -> Program:
        module = _ShortcutPass(model, step, split, list(kept))
        module.reference, module.signals = reference, signals
        return _export(module, {**step.examples, **kept}, dynamic)

    with ops.use("grid"):
        read = _read(shortcut(leaves, False))
        kept = {name: x for name, x in leaves.items() if name in read}
        found = {
            "reference": _export(_ReferencePass(model, step, split, list(kept)), dict(step.examples), dynamic),
            "shortcut": shortcut(kept, dynamic),
        }
        if isinstance(step, AdapterStep):
            for i in range(len(step.openings)):
                found[f"opening_{i}"] = _export(_Opening(step, i), step.opening_examples(i), False)
    return found


def _export(module: _Pass | _Opening, inputs: Named, dynamic: bool) -> Program:
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


def _read(program: Program) -> set[str]:
    """The inputs that the program reads."""
    nodes: dict[str, Any] = {node.name: node for node in program.exported.graph.nodes}
    pairs = zip(program.inputs, program.exported.graph_signature.user_inputs, strict=True)
    return {name for name, node in pairs if nodes[str(node)].users}
