import pytest
import torch
from torch import nn
from torch.utils.flop_counter import flop_registry

from shortcutv2v import measure, ops
from shortcutv2v.errors import InputError
from shortcutv2v.graph import MacCounter


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


QUERY, KEY = torch.ones(2, 4, 9, 16), torch.ones(2, 4, 11, 16)
SEQUENCE = torch.ones(2, 9, 16)
ATTENTION = 2 * 9 * 16 * 4 * 16 + 2 * 2 * 9 * 9 * 16  # three projections in, one out; scores, and their sum
COUNTED = {
    "3-D": (nn.Conv3d(3, 5, 3, padding=1), (torch.ones(2, 3, 4, 6, 7),), 2 * 4 * 6 * 7 * 5 * 3 * 27),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2), (torch.ones(1, 4, 9, 8),), 5 * 4 * 6 * 4 * 9),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2), (torch.ones(1, 4, 5, 7),), 35 * 4 * 3 * 16),
    "SDPA": (nn.functional.scaled_dot_product_attention, (QUERY, KEY, KEY), 2 * 2 * 4 * 9 * 11 * 16),
    "attention": (nn.MultiheadAttention(16, 4, batch_first=True), (SEQUENCE,) * 3, ATTENTION),
    "transformer": (
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        (SEQUENCE,),
        ATTENTION + 2 * 2 * 9 * 16 * 32,
    ),
    "LSTM": (nn.LSTM(16, 20, batch_first=True, bidirectional=True), (SEQUENCE,), 2 * 2 * 9 * 4 * 20 * (16 + 20)),
    "matrix and vector": (torch.matmul, (SEQUENCE, torch.ones(16)), 2 * 9 * 16),
    "einsum": (lambda q, k: torch.einsum("bhid,bhjd->bhij", q, k), (QUERY, KEY), 2 * 4 * 9 * 11 * 16),
    "addbmm": (torch.addbmm, (torch.ones(9, 9), SEQUENCE, SEQUENCE.mT), 2 * 9 * 9 * 16),
}


@pytest.mark.parametrize("name", COUNTED)
def test_every_kind_of_product_is_counted(name):
    function, args, macs = COUNTED[name]
    if isinstance(function, nn.Module):
        function.eval()  # attention has a fused path then
    assert measure.cost(function, *args).macs == macs
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("name", ["SDPA", "attention", "transformer"])
def test_cuts_are_priced_with_attention(name):
    function, args, macs = COUNTED[name]
    if isinstance(function, nn.Module):
        function.eval()
    with torch.no_grad(), MacCounter() as count:
        function(*args)
    assert count.total == macs


def test_cudnns_recurrent_layers_have_a_formula():
    formula = flop_registry[torch.ops.aten._cudnn_rnn]
    weights = [torch.ones(80, 16), torch.ones(80, 20), torch.ones(80), torch.ones(80)]
    out = (torch.ones(2, 9, 20),)
    assert formula(SEQUENCE, weights, 4, None, out_val=out) == 2 * 2 * 9 * 4 * 20 * (16 + 20)
