"""Every row of the paper's Tables 1, 4 and 6: as published, by the paper's way of counting, and by its true cost.

    python benchmarks/paper_tables.py            # a table
    python benchmarks/paper_tables.py --json     # the same numbers for programs

The paper counts one shortcut frame with a tool (thop) that watches layers: a transposed convolution is priced at its
output size, norms at 2 or 4 operations per value, and whatever is no layer (deformable convolutions, StyleGAN's
modulated convolutions) is free; parameters are those of the layers that ran. Truly counted are all multiply-adds of
convolutions and matrix products, deformable ones included, norms and biases left out, as the published block runs:
the whole block at every shortcut frame, its blending as two deformable convolutions. Nothing is run at full size:
teachers are counted on the meta device, blocks on small maps.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks and examples are no installed packages

from benchmarks.paper_counts import TEACHERS, Count, count_block, count_modules, run_by_shortcut

__all__ = ["ROWS", "Result", "Row", "evaluate", "main"]


@dataclass(frozen=True)
class Row:
    """A row of the paper.

    Attributes:
        row: its name here.
        table: where it stands.
        published: giga multiply-adds and million parameters, as printed.
        teacher: key of `TEACHERS`.
        level: of dependence on the teacher; None for the teacher itself.
        channels: width h of the block or blocks.
        interval: the paper's alpha.
        twice: whether the authors counted the reconstruction twice (their training pass; all vid2vid rows).
        note: what no configuration can explain.
    """

    row: str
    table: str
    published: tuple[float, float]
    teacher: str
    level: str | None = None
    channels: int = 0
    interval: int = 3
    twice: bool = False
    note: str = ""


ROWS = [
    Row("V2C original", "1", (84.61, 7.84), "V2C", note="84.608 without the norms, which every other row includes"),
    Row("V2C low", "4", (13.79, 0.14), "V2C", "low", 64),
    Row("V2C medium", "1, 4", (18.19, 0.32), "V2C", "medium", 64),
    Row(
        "V2C high",
        "4",
        (27.97, 1.38),
        "V2C",
        "high",
        64,
        note="the published MACs are those of h=64, the published parameters those of h=128: see the next row",
    ),
    Row(
        "V2C high, h=128", "4", (27.97, 1.38), "V2C", "high", 128, note="as V2C high, with the width of its parameters"
    ),
    Row("L2V original", "1", (42.36, 7.84), "L2V"),
    Row("L2V medium", "1", (9.09, 0.32), "L2V", "medium", 64),
    Row("E2F original", "1", (2066.69, 365.0), "E2F"),
    Row("E2F low", "4", (243.97, 2.11), "E2F", "low", 128, 6, twice=True),
    Row("E2F medium", "1, 4", (359.99, 8.29), "E2F", "medium", 256, 6, twice=True),
    Row("E2F high", "4", (475.99, 32.98), "E2F", "high", 512, 6, twice=True),
    Row("L2C original", "1", (1254.17, 411.34), "L2C"),
    Row("L2C medium", "1", (389.16, 52.58), "L2C", "medium", 128, twice=True),
    Row(
        "VToonify original",
        "6",
        (515.51, 48.46),
        "VToonify",
        note="StyleGAN2's layers are free in this way of counting",
    ),
    Row(
        "VToonify ours",
        "6",
        (303.26, 15.37),
        "VToonify",
        "medium",
        256,
        note="the cut of the published parameters; what it keeps of the teacher alone exceeds the published MACs",
    ),
]


@dataclass(frozen=True)
class Result:
    """The results for a row; MACs in billions, parameters in millions.

    Attributes:
        row: name.
        table: where it stands in the paper.
        published_macs_g: as printed.
        published_params_m: as printed.
        paper_macs_g: our modules, counted the paper's way (vid2vid: with the second reconstruction).
        paper_params_m: the same.
        paper_macs_once_g: without the second reconstruction, which inference does not need.
        macs_difference_percent: of `paper_macs_g` from the print.
        params_difference_percent: the same.
        true_macs_g: true cost of a shortcut frame of the published block, or of the teacher.
        run_macs_g: the same where the block's part that depends on the reference alone is computed once per refresh,
            as this package does.
        amortised_macs_g: true cost of the average frame: one full pass per interval.
        amortised_no_flow_macs_g: the same where full passes leave the flow branch out (vid2vid).
        filter_macs_g: StyleGAN2's 4x4 filters, not included above.
        resident_params_m: teacher and blocks: what has to stay in memory.
        used_params_m: parameters that a shortcut frame reads.
        interval: frames per full pass.
        note: what no configuration can explain.
    """

    row: str
    table: str
    published_macs_g: float
    published_params_m: float
    paper_macs_g: float
    paper_params_m: float
    paper_macs_once_g: float
    macs_difference_percent: float
    params_difference_percent: float
    true_macs_g: float
    run_macs_g: float
    amortised_macs_g: float
    amortised_no_flow_macs_g: float
    filter_macs_g: float
    resident_params_m: float
    used_params_m: float
    interval: int
    note: str


def evaluate(row: Row) -> Result:
    """Count one row."""
    modules, shapes = count_modules(row.teacher)
    full = _sum(modules)
    no_flow = _sum(count_modules(row.teacher, flow=False)[0])
    short, run, extra, blocks = full, full.macs, 0.0, Count()
    if row.level is not None:
        names = run_by_shortcut(row.teacher, row.level)
        kept = _sum({name: count for name, count in modules.items() if name in names})
        run = kept.macs
        for enc, dec in _branches(row):
            f = shapes[dec]
            block, ours = count_block(sum(shapes[name][1] for name in enc), f, row.channels)
            blocks, run = blocks + block, run + ours
            extra += row.channels * f.numel() if row.twice else 0.0
        short = kept + blocks
    interval = row.interval if row.level is not None else 1
    paper, params = short.paper_macs + extra, short.paper_params
    return Result(
        row=row.row,
        table=row.table,
        published_macs_g=row.published[0],
        published_params_m=row.published[1],
        paper_macs_g=paper / 1e9,
        paper_params_m=params / 1e6,
        paper_macs_once_g=short.paper_macs / 1e9,
        macs_difference_percent=100 * (paper / 1e9 / row.published[0] - 1),
        params_difference_percent=100 * (params / 1e6 / row.published[1] - 1),
        true_macs_g=short.macs / 1e9,
        run_macs_g=run / 1e9,
        amortised_macs_g=(full.macs + (interval - 1) * short.macs) / interval / 1e9,
        amortised_no_flow_macs_g=(no_flow.macs + (interval - 1) * short.macs) / interval / 1e9,
        filter_macs_g=short.filters / 1e9,
        resident_params_m=(full.params + blocks.params) / 1e6,
        used_params_m=short.params / 1e6,
        interval=interval,
        note=row.note,
    )


def _sum(counts: dict[str, Count]) -> Count:
    total = Count()
    for count in counts.values():
        total += count
    return total


def _branches(row: Row) -> list[tuple[tuple[str, ...], str]]:
    """Names whose outputs make `a`, and the name whose output is `f`, per branch."""
    enc, dec = TEACHERS[row.teacher].cut(row.level or "")
    if isinstance(dec, str):
        return [((enc,) if isinstance(enc, str) else tuple(enc), dec)]
    return [((one,), other) for one, other in zip(enc, dec, strict=True)]


def _table(results: list[Result]) -> str:
    columns = ["row", "table", "published G / M", "paper's way G / M", "difference %", "once G", "true G"]
    columns += ["reference part kept G", "average frame G", "(no flow) G", "resident M"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for r in results:
        lines.append(
            f"| {r.row} | {r.table} | {r.published_macs_g:.2f} / {r.published_params_m:.2f} "
            f"| {r.paper_macs_g:.3f} / {r.paper_params_m:.4f} "
            f"| {r.macs_difference_percent:+.2f} / {r.params_difference_percent:+.2f} | {r.paper_macs_once_g:.3f} "
            f"| {r.true_macs_g:.2f} | {r.run_macs_g:.2f} | {r.amortised_macs_g:.2f} | {r.amortised_no_flow_macs_g:.2f} "
            f"| {r.resident_params_m:.2f} |"
        )
    notes = [f"{r.row}: {r.note}." for r in results if r.note]
    return "\n".join([*lines, "", *notes])


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="a list of rows instead of a table")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # everything is tiny: more threads only get in each other's way
    results = [evaluate(row) for row in ROWS]
    print(json.dumps([asdict(result) for result in results], indent=1) if options.json else _table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
