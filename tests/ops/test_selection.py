import pytest
import torch

from shortcutv2v import ops
from shortcutv2v.errors import InputError
from shortcutv2v.ops.selection import choose


def test_argument_wins_over_context():
    like = torch.zeros(1)
    default = choose(None, like)
    with ops.use("reference"):
        assert choose(None, like) == "reference"
        assert choose(default, like) == default
    assert choose(None, like) == default


def test_context_ends_with_an_exception():
    like = torch.zeros(1)
    default = choose(None, like)
    with pytest.raises(KeyError), ops.use("reference"):
        raise KeyError
    assert choose(None, like) == default


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'refrence'.*'reference'.*Did you mean 'reference'\?"), ops.use("refrence"):
        pass
    with pytest.raises(InputError, match="must be one of"):
        ops.warp(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2), implementation="nothing")


def test_compiled_code_takes_no_kernel_that_a_cuda_graph_cannot_record(monkeypatch):
    like = torch.empty(1, device="meta")
    cuda = type("Cuda", (), {"device": torch.device("cuda")})()  # no GPU is needed to ask
    assert (choose(None, cuda), choose(None, like)) == ("reference", "reference")
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    assert choose(None, cuda) == "plain"
    assert choose("triton", cuda) == "triton"
