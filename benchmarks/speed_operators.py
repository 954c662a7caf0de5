"""Cases of `speed.py` beside whole teachers: operators, and a distillation step, as callables by name."""

from __future__ import annotations

import torch
from benchmarks.speed_cases import Case, Setting, Work
from examples.unsup import teacher as unsup

import shortcutv2v
from shortcutv2v import ops

__all__ = ["operator_work", "step_work", "warp_work"]


def operator_work(setting: Setting) -> dict[str, Work]:
    """Return AdaBD at 64 channels and 128x256, as Unsup's medium cut needs it. The first callable is the baseline."""
    f, a, weight = (setting.place(x) for x in (*torch.randn(2, 1, 64, 128, 256), torch.randn(64, 64, 3, 3)))
    offset, mask = (x.to(setting.device) for x in (torch.randn(1, 18, 128, 256), torch.rand(1, 9, 128, 256)))
    columns, matrix = setting.place(torch.randn(128 * 256, 576)), setting.place(torch.randn(576, 64))
    f_last, a_last = (x.contiguous(memory_format=torch.channels_last) for x in (f, a))
    half = f_last.bfloat16(), a_last.bfloat16(), weight.bfloat16()
    work: dict[str, Work] = {}
    for name in setting.implementations:
        label = "two deform_conv2d" if name == "reference" else name
        work[label] = lambda name=name: ops.adabd(f, a, offset, mask, weight, implementation=name)  # type: ignore[misc]
    fastest = setting.implementations[-1]
    work[f"{fastest}, channels_last"] = lambda: ops.adabd(f_last, a_last, offset, mask, weight, implementation=fastest)
    work[f"{fastest}, channels_last, bfloat16"] = lambda: ops.adabd(
        half[0], half[1], offset, mask, half[2], implementation=fastest
    )
    work["the matrix product alone"] = lambda: columns @ matrix
    return work


def warp_work(setting: Setting) -> dict[str, Work]:
    """Return the warp of 64 channels at 128x256, channels_last."""
    f = setting.place(torch.randn(1, 64, 128, 256)).contiguous(memory_format=torch.channels_last)
    offset = torch.randn(1, 2, 128, 256, device=setting.device)
    return {name: lambda name=name: ops.warp(f, offset, implementation=name) for name in setting.implementations}  # type: ignore[misc]


def step_work(setting: Setting) -> dict[str, Work]:
    """Return a distillation step of the published block on Unsup: two pairs of 128x128 crops, forward and backward."""
    from shortcutv2v.distill import Distiller

    pairs = torch.rand(2, 2, 3, 128, 128).to(setting.device, setting.dtype)
    case = setting.case(Case(unsup.build_teacher({}), {"medium": unsup.published_cut(6)}, (pairs[:, 0],)))
    enc, dec = case.cuts["medium"]
    distiller = Distiller(shortcutv2v.wrap(case.teacher, enc, dec, example_inputs=case.inputs, variant="paper"))

    def step(implementation: str) -> Work:
        def run() -> None:
            with torch.enable_grad(), ops.use(implementation):
                (made,) = distiller.shortcut_frames(pairs)
                torch.stack(list(distiller.losses(made).values())).sum().backward()

        return run

    fastest = setting.implementations[-1]
    return {
        "step on deform_conv2d": step("reference"),
        f"step on {fastest}": step(fastest),
        "teacher, both frames": lambda: case.teacher(pairs.flatten(0, 1)),
    }
