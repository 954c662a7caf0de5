import pytest
import torch
from torch import nn

from shortcutv2v import measure, ops
from shortcutv2v.errors import InputError


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 8, 3),
            "grouped": nn.Conv2d(8, 8, 3, groups=4, padding=1),
            "instance": nn.InstanceNorm2d(8),
            "batch": nn.BatchNorm2d(8),
            "up": nn.ConvTranspose2d(8, 4, 3, 2, 1, 1),
            "linear": nn.Linear(4 * 12 * 14, 5),
        }
    ).eval()


def run(layers, x):
    x = layers["batch"](layers["instance"](layers["grouped"](layers["conv"](x))))
    return layers["linear"](layers["up"](x).flatten(1))


def test_true_and_paper_multiply_adds(layers):
    x = torch.rand(1, 3, 8, 9)
    conv, grouped, linear = 6 * 7 * 8 * 27, 6 * 7 * 8 * 2 * 9, 4 * 12 * 14 * 5
    true_up, paper_up = 6 * 7 * 8 * 4 * 9, 12 * 14 * 4 * 8 * 9
    norms = 6 * 7 * 8 * (2 + 4)
    parameters = sum(p.numel() for p in layers.parameters())
    assert measure.cost(run, layers, x) == measure.Cost(conv + grouped + true_up + linear, parameters)
    paper = measure.cost(run, layers, x, convention="paper")
    assert paper == measure.Cost(conv + grouped + norms + paper_up + linear, parameters)


def test_only_parameters_that_are_read_count(layers):
    x = torch.rand(1, 3, 8, 9)
    assert measure.cost(layers["conv"], x).parameters == 8 * 27 + 8
    assert measure.cost(lambda: layers["conv"](layers["conv"](x).narrow(1, 0, 3))).parameters == 8 * 27 + 8


def test_deformable_convolutions_are_free_in_the_paper_only():
    weight = nn.Parameter(torch.rand(5, 4, 3, 3))
    f, a = torch.rand(1, 4, 6, 7), torch.rand(1, 4, 6, 7)
    offset, mask = torch.rand(1, 18, 6, 7), torch.rand(1, 9, 6, 7)
    product = 5 * 4 * 9 * 6 * 7
    for name, products in (("reference", 2), ("rows", 1), ("plain", 1)):
        with ops.use(name):
            assert measure.cost(ops.adabd, f, a, offset, mask, weight) == measure.Cost(
                products * product, weight.numel()
            )
    with ops.use("reference"):
        assert measure.cost(ops.adabd, f, a, offset, mask, weight, convention="paper") == measure.Cost(0, 0)


def test_unknown_convention():
    with pytest.raises(InputError, match="'true' or 'paper'"):
        measure.cost(lambda: None, convention="thop")


def test_compiled_code_costs_what_eager_code_costs():
    layer = nn.Conv2d(3, 4, 3)
    x = torch.rand(1, 3, 6, 6)
    compiled = torch.compile(layer, backend="eager")
    for convention in ("true", "paper"):
        assert measure.cost(compiled, x, convention=convention) == measure.cost(layer, x, convention=convention)
    runs = []
    opaque = torch.compile(layer, backend=lambda graph, _: lambda *args: runs.append(1) or graph(*args))
    opaque(x)
    assert len(runs) == 1
    assert measure.cost(opaque, x) == measure.cost(layer, x)
    assert len(runs) == 1
