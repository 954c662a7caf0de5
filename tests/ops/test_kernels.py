"""The Triton kernels, without a GPU: run by Triton's interpreter, and compiled for a device.

The interpreter is chosen when Triton is imported, hence the processes of their own.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

INTERPRETED = """
import sys, torch
sys.path.insert(0, {folder!r})
from agreement import check
from conftest import make_inputs
from shortcutv2v import ops
from shortcutv2v.ops import functions, kernels

def both(got, want, tensors):
    one, two = ([t.clone().requires_grad_() for t in tensors] for _ in range(2))
    out, expected = got(*one), want(*two)
    torch.testing.assert_close(out, expected)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(one, two):
        torch.testing.assert_close(a.grad, b.grad)

for k, spread in ((1, 1.0), (3, 0.7), (3, 40.0)):
    f, a, offset, mask, weight = make_inputs(b=2, c=20, h=5, w=8, k=k, spread=spread)
    both(kernels.blend, lambda *x: ops.adabd(*x, implementation="reference"), (f, a, offset, mask, weight))
    plain = lambda f, offset, weight: ops.deform(f, offset, weight, implementation="reference")
    both(lambda f, offset, weight: kernels.blend(f, None, offset, None, weight), plain, (f, offset, weight))
for border in (0, 1):
    moved = offset[:, :2, border : 5 - border, border : 8 - border]
    want = lambda f, at: ops.warp(f, at, border=border, implementation="reference")
    both(lambda f, at: kernels.warp(f, at, border), want, (f, moved))
half = [t.half() for t in (f, a)]
out = kernels.blend(*half, offset.float(), mask.float(), weight.half())
assert out.dtype == torch.half and (out.double() - ops.adabd(f, a, offset, mask, weight)).abs().max() < 0.2
assert torch.equal(kernels.warp(half[0], 0 * offset[:, :2].float(), 0), half[0])
assert kernels.blend(f[:0], a[:0], offset[:0], mask[:0], weight).shape == (0, 5, 5, 8)
last = f.contiguous(memory_format=torch.channels_last)
assert kernels.warp(last, 0 * offset[:, :2], 0).is_contiguous(memory_format=torch.channels_last)
chosen = functions._module
functions._module = lambda name, f: kernels if name == "triton" else chosen(name, f)
guarded = []
torch.cuda.device_of = lambda f: guarded.append(f.shape) or torch.cuda.device(-1)
for seed in range(16):
    check(seed, "triton")
assert len(guarded) > 16  # launched on the device of the features, forward and backward
print("agreed")
"""

COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from shortcutv2v.ops import kernels

sizes = {name: "i32" for name in ("h", "w", "P", "W", "C", "border")}
constants = {"KERNEL": 3, "BLEND": True, "BLOCK_P": 32, "BLOCK_C": 64}
pointers = {
    kernels._columns_kernel: ("*fp16", "*fp16", "*fp32", "*fp32", "*fp16"),
    kernels._gradient_kernel: ("*fp16",) * 3 + ("*fp32",) * 6,
}
for kernel, types in pointers.items():
    names = kernel.arg_names
    # Triton compiles arguments that are one as constants: a picture of one pixel, with one channel.
    for fixed in ({}, {"BLEND": False} | dict.fromkeys(("h", "w", "P", "W", "C"), 1)):
        held = constants | fixed
        signature = dict(zip(names, types)) | sizes | dict.fromkeys(held, "constexpr")
        source = ASTSource(kernel, {n: signature[n] for n in names}, held)
        made = compile(source, target=GPUTarget("cuda", 80, 32))
        assert made.asm["ptx"]
print("compiled")
"""


def run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_interpreted_kernels_agree_with_the_reference():
    assert run(INTERPRETED.format(folder=os.path.dirname(__file__)), TRITON_INTERPRET="1") == "agreed"


def test_kernels_compile_for_cuda(tmp_path):
    """To device code, on the CPU; what the device makes of it is not checked."""
    assert run(COMPILED, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)) == "compiled"
