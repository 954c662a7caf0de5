"""Features of another dtype than the teacher's first parameter, and teachers that are cast after wrapping."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.errors import OutputTypeError
from shortcutv2v.model import placement
from shortcutv2v.translate import Translator


def conv(i: int, o: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = conv(3, 8)
        self.mid = nn.Sequential(conv(8, 16), nn.ReLU(), conv(16, 8))
        self.dec = conv(8, 8)
        self.out = conv(8, 3)

    def body(self, x: Tensor) -> Tensor:
        return self.dec(self.mid(torch.relu(self.enc(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.body(x)))


class AutocastInside(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            f = self.body(x)
        return self.out(torch.relu(f.float()))


class AutocastAroundAll(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x).float()


class HalfTableFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, dtype=torch.float16))
        self.net = Net()
        self.enc, self.dec = self.net.enc, self.net.dec

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TrunkInBfloat16(Net):
    def __init__(self) -> None:
        super().__init__()
        self.mid.bfloat16()
        self.dec.bfloat16()
        self.enc2 = conv(8, 8).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        deep = self.dec(self.mid(self.enc2(torch.relu(self.enc(x)).bfloat16())))
        return self.out(torch.relu(deep.float()))


class TailInDouble(Net):
    def __init__(self) -> None:
        super().__init__()
        self.dec.double()
        self.out.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.dec(self.mid(torch.relu(self.enc(x))).double()))).float()


KINDS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "autocast inside": (AutocastInside, "enc"),
    "autocast around all": (AutocastAroundAll, "enc"),
    "half table first": (HalfTableFirst, "enc"),
    "trunk in bfloat16, cut inside": (TrunkInBfloat16, "enc2"),
    "trunk in bfloat16, cut across": (TrunkInBfloat16, "enc"),
    "tail in double": (TailInDouble, "enc"),
    "all in bfloat16": (lambda: Net().bfloat16(), "enc"),
    "all in double": (lambda: Net().double(), "enc"),
}
VARIANTS = ["flow", "paper", "single_stage"]
frames = torch.rand(4, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def cast(net: nn.Module, x: Tensor) -> Tensor:
    return x.to(net.enc.weight.dtype)


@pytest.mark.parametrize("capture", ["fx", "export", "hooks"])
@pytest.mark.parametrize(("make", "enc"), KINDS.values(), ids=KINDS)
def test_every_strategy_runs_and_trains(make: Callable[[], nn.Module], enc: str, capture: str) -> None:
    run_and_train(make, enc, "flow", capture)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("make", "enc"), KINDS.values(), ids=KINDS)
def test_every_block_runs_and_trains(make: Callable[[], nn.Module], enc: str, variant: str) -> None:
    run_and_train(make, enc, variant, None)


def run_and_train(make: Callable[[], nn.Module], enc: str, variant: str, capture: str | None) -> None:
    torch.manual_seed(0)
    net = make().eval()
    x = [cast(net, frame) for frame in frames]
    model = shortcutv2v.wrap(net, enc, "dec", example_inputs=(x[0],), variant=variant, capture=capture)
    with torch.no_grad():
        want = net(x[0])
    assert torch.equal(model(x[0]), want)
    for frame in x[1:]:
        shown = model(frame)
        assert (shown.dtype, shown.shape) == (want.dtype, want.shape)
        assert shown.isfinite().all()
    carry = model.head(x[1])
    f = model.middle(carry)
    reference = model.make_reference(carry, f)
    predicted = model.predict(reference, carry)
    assert [p.dtype for p in predicted] == [part.dtype for part in f]
    (made,) = model.analyse(reference, model.head(x[2]))
    assert made.f_hat.dtype == made.f_star.dtype == f[0].dtype
    (made.f_hat.float() - 1).square().mean().backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(("make", "enc"), KINDS.values(), ids=KINDS)
def test_an_untrained_block_repeats_the_reference_bit_for_bit(make: Callable[[], nn.Module], enc: str) -> None:
    """Blocks are at least as precise as the features: nothing is lost by going through them."""
    net = make().eval()
    model = shortcutv2v.wrap(net, enc, "dec", example_inputs=(cast(net, frames[0]),))
    carry = model.head(cast(net, frames[0]))
    f = model.middle(carry)
    assert torch.equal(model.predict(model.make_reference(carry, f), carry)[0], f[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("moment", ["after wrap", "in a video", "there and back"])
def test_the_teacher_may_be_cast_after_wrapping(dtype: torch.dtype, variant: str, moment: str) -> None:
    net = Net().eval()
    model = shortcutv2v.wrap(net, "enc", "dec", example_inputs=(frames[0],), variant=variant)
    stream = model.stream()
    if moment != "after wrap":
        stream(frames[0]), stream(frames[1])
    net.to(dtype)
    for frame in frames:
        assert stream(frame.to(dtype)).dtype == dtype
    if moment == "there and back":
        net.float()
        for frame in frames:
            assert stream(frame).dtype == torch.float32


@pytest.mark.parametrize("cache", [None, "auto"])
@pytest.mark.parametrize(("make", "enc"), KINDS.values(), ids=KINDS)
def test_fit_and_translate(make: Callable[[], nn.Module], enc: str, cache: str | None) -> None:
    torch.manual_seed(0)
    net = make().eval()
    clip = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    model = shortcutv2v.wrap(net, enc, "dec", refresh=2)
    shortcutv2v.fit(model, clip, minutes=None, steps=2, crop=16, batch_size=2, cache=cache, progress=False)
    assert all(weight.isfinite().all() for weight in model.parameters())
    translate = Translator(shortcutv2v.Adapter(net, enc, "dec"), model)
    assert {translate(frame).dtype for frame in clip} == {torch.uint8}


def test_looking_for_the_dtype_leaves_parametrizations_alone() -> None:
    net = nn.utils.parametrizations.spectral_norm(conv(3, 8)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert placement(net)[1] == torch.float32
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_model_saved_for_one_precision_serves_another(tmp_path) -> None:
    net = Net().eval()
    shortcutv2v.wrap(net, "enc", "dec", example_inputs=(frames[0],)).save(tmp_path)
    loaded = shortcutv2v.load(tmp_path, net.bfloat16())
    for frame in frames:
        assert loaded(frame.bfloat16()).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore")  # torch is about to drop this kind of quantisation
def test_quantised_features_are_refused_by_name() -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    if not torch.backends.quantized.supported_engines[1:]:
        pytest.skip("no engine for quantised networks")
    torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    net = quantization.QuantWrapper(nn.Sequential(conv(3, 8), conv(8, 8), conv(8, 3))).eval()
    net.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    quantization.prepare(net, inplace=True)
    net(frames[0])
    quantization.convert(net, inplace=True)
    with pytest.raises(OutputTypeError, match=r"'module\.0' returns values of torch\.quint8"):
        shortcutv2v.wrap(net, "module.0", "module.2", example_inputs=(frames[0],))
