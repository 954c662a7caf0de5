"""The zoo runs only when it is asked for (`-m slow`), and then writes its score where it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STRATEGIES = ("fx", "export", "hooks")
_PREFACE = (
    "Third-party networks, built without weights and cut where `suggest_cuts` says, written by `nox -s zoo`.",
    "*Exact*: the split with the true `f` equals the teacher bit for bit, on the captured and on fresh inputs, at a",
    "second size and batch, and with NaN in the weights of the middle; the teacher is left as found; wrong cuts are",
    "refused. *Alone*: how many of them a single strategy captures when it is forced; the others it refuses.",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--zoo-table", default=None, help="write the zoo's score as markdown to this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="the zoo takes minutes; its own nox session runs it with -m slow")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def score(request: pytest.FixtureRequest) -> Iterator[dict[str, dict[str, Any]]]:
    """Rows of the score table by case; written out when the session ends."""
    rows: dict[str, dict[str, Any]] = {}
    yield rows
    path = request.config.getoption("--zoo-table")
    if path:
        Path(path).write_text(table(list(rows.values())), encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """The score as markdown: one line per package, the time of a capture, then one line per network."""
    lines = [
        "# The zoo",
        "",
        *_PREFACE,
        "",
        "| package | networks | exact | fx alone | export alone | hooks alone |",
        "|---|---|---|---|---|---|",
    ]
    for name in [*sorted({r["package"] for r in rows}), "all"]:
        own = [r for r in rows if name in (r["package"], "all")]
        exact = sum(r["result"] == "exact" for r in own)
        alone = [str(sum(isinstance(r.get(s), float) for r in own)) for s in STRATEGIES]
        lines.append(f"| {name} | {len(own)} | {exact} | {' | '.join(alone)} |")
    times = {s: sorted(r[s] for r in rows if isinstance(r.get(s), float)) for s in STRATEGIES}
    spans = [f"{s} {v[len(v) // 2]:.1f} s ({v[-1]:.1f} s)" for s, v in times.items() if v]
    lines += ["", f"Median (longest) time of a capture with its verification: {', '.join(spans)}.", ""]
    adapted = {f"{r['name']}": r["adapter"] for r in rows if "adapter" in r}
    if adapted:
        refused = [f"{name} ({said})" for name, said in adapted.items() if said != "exact"]
        lines.append(
            f"Through `--adapter spandrel`, from files: {len(adapted) - len(refused)} of {len(adapted)} exact."
        )
        lines += [f"Refused: {'; '.join(refused)}." if refused else "", ""]
    lines += ["| network | cut | share of multiply-adds saved | fx | export | hooks | result |", f"|{'---|' * 7}"]
    for r in rows:
        alone = [f"{r[s]:.1f} s" if isinstance(r.get(s), float) else str(r.get(s, "")) for s in STRATEGIES]
        cells = [f"{r['package']}: {r['name']}", r.get("cut", ""), f"{r.get('share', 0):.0%}", *alone, r["result"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
