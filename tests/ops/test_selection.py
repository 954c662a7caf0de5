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


def test_compiled_code_follows_the_context():
    compiled = torch.compile(lambda x: (x + 1, choose(None, x)), backend="eager", fullgraph=True)
    like = torch.zeros(1)
    assert compiled(like)[1] == "rows"
    with ops.use("reference"):
        assert compiled(like)[1] == "reference"
    assert compiled(like)[1] == "rows"


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'refrence'.*'reference'.*Did you mean 'reference'\?"), ops.use("refrence"):
        pass
    with pytest.raises(InputError, match="must be one of"):
        ops.warp(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2), implementation="nothing")


class Cuda:
    """A tensor on a GPU, as far as the choice goes; there need not be one."""

    device = torch.device("cuda", 1)


def test_the_default_goes_by_device():
    assert (choose(None, Cuda), choose(None, torch.empty(1, device="meta"))) == ("fused", "reference")
    assert choose("reference", Cuda) == "reference"
