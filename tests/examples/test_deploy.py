"""Exported passes give what the model gives, and the shortcut's program holds nothing of the middle."""

from __future__ import annotations

import pytest
import torch
from examples.deploy.export import export_passes
from tests.conftest import TEACHERS
from torch import nn

import shortcutv2v
from shortcutv2v import ops

# torch 2.6 takes the weights for constants of the program and warns of each.
pytestmark = pytest.mark.skipif(torch.__version__ < (2, 7), reason="its torch.export finds no weights")


@pytest.mark.parametrize("variant", ["paper", "flow", "flow_half"])
@pytest.mark.parametrize("teacher", TEACHERS)
def test_exported_passes_equal_the_models(teacher: str, variant: str) -> None:
    torch.manual_seed(0)
    kind, enc_layer, dec_layer = TEACHERS[teacher]
    net = kind().eval()
    first, second = torch.rand(2, 1, 3, 16, 24)
    model = shortcutv2v.wrap(net, enc_layer, dec_layer, example_inputs=(first,), variant=variant)
    for parameter in model.blocks.parameters():
        nn.init.normal_(parameter, std=0.1)
    reference, shortcut = export_passes(model, (first,))
    with torch.no_grad(), ops.use("plain"):
        output, state = model.reference(first)
        got, *tensors = reference.module()(first)
        torch.testing.assert_close(got, output)
        torch.testing.assert_close(shortcut.module()(tensors, second), model.shortcut(state, second))
    assert not (_weights(shortcut) & _middle(model)), "a weight of the middle is in the shortcut's program"
    assert _weights(reference) >= _middle(model)


def _weights(program: torch.export.ExportedProgram) -> set[int]:
    """Where the values of a program's weights and constants lie: they are shared, not copied."""
    values = [*program.state_dict.values(), *program.constants.values()]
    return {value.data_ptr() for value in values if isinstance(value, torch.Tensor)}


def _middle(model: shortcutv2v.ShortcutV2V) -> set[int]:
    layer = {"Chain": "3", "UNet": "mid", "TwoOutputs": "body"}[type(model.teacher).__name__]
    return {parameter.data_ptr() for parameter in model.teacher.get_submodule(layer).parameters()}


def test_a_reference_is_an_input_of_a_program(chain: nn.Module) -> None:
    frame = torch.rand(1, 3, 16, 24)
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(frame,)).eval()

    class Shortcut(nn.Module):
        def forward(self, reference: shortcutv2v.Reference, frame: torch.Tensor) -> torch.Tensor:
            return model.shortcut(reference, frame)

    with torch.no_grad():
        reference = model.reference(frame)[1]
        program = torch.export.export(Shortcut(), (reference, frame), strict=False)
        torch.testing.assert_close(program.module()(reference, frame), model.shortcut(reference, frame))
