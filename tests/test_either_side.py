"""Look-ahead that tries both references where one fails, against a slow loop written from its definition."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
import torch
from tests.policies import EitherSide
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.lookahead import LookAhead


@dataclass
class Slow:
    """Says for every frame of a clip which references it is made of: none, one or two.

    References are places in the clip, and every prediction is made anew from them.
    """

    model: shortcutv2v.ShortcutV2V
    clip: Tensor
    interval: int
    alone: float
    limit: float
    made: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def holds(self, place: int, *references: int) -> bool:
        found = [self.model.reference(self.clip[reference])[1] for reference in references]
        left = float(self.model.analyse(found[0], self.model.head(self.clip[place]), *found[1:])[0].unexplained)
        return left <= (self.alone if len(references) == 1 else self.limit)

    def run(self) -> list[tuple[int, ...]]:
        self.made, last, gap = {0: ()}, 0, 0
        while last + 1 < len(self.clip) and len(self.made) < len(self.clip):
            held = min(len(self.clip) - 1 - last, 2 * self.interval - 1)
            if gap and held > self.interval // 2:
                end = last + min(gap, held)
                self.made[end] = ()
                self.between(last, end, list(range(last + 1, end)))
                references = [place for place in range(last, end + 1) if self.made[place] == ()]
                widest = max(b - a for a, b in itertools.pairwise(references))
                longer = 0 if end - last >= self.interval else min(-(-3 * (end - last) // 2), self.interval)
                gap = longer if len(references) == 2 else max(2, widest)
                last = end
            else:
                last, gap = self.one_side(last, held, gap)
        return [self.made[place] for place in range(len(self.clip))]

    def between(self, low: int, high: int, places: list[int]) -> None:
        """From both references, the middle first; one that is refused splits what is left."""
        for place in sorted(places, key=lambda place: abs(2 * place - low - high)):
            if not self.holds(place, high, low):
                self.made[place] = ()
                rest = [other for other in places if other not in self.made]
                self.between(low, place, [other for other in rest if other < place])
                self.between(place, high, [other for other in rest if other > place])
                return
            self.made[place] = (high, low)

    def one_side(self, last: int, held: int, gap: int) -> tuple[int, int]:
        """Forwards until one is refused, then backwards from as far again after it."""
        ends = held < self.interval
        most = held if ends else held // 2
        reached = next((n for n in range(most) if not self.holds(last + 1 + n, last)), most)
        for n in range(reached):
            self.made[last + 1 + n] = (last,)
        if reached == held:
            return last + held, gap
        if reached == 0:
            gap = min(5, 2 * self.interval - 1)
        end = last + 1 + (min(2 * reached, held - 1) if reached < most else held - 1)
        self.made[end] = ()
        reference = end
        for place in range(end - 1, last + reached, -1):
            if self.holds(place, reference):
                self.made[place] = (reference,)
            else:
                self.made[place], reference = (), place
        return end, gap


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("alone", "limit"),
    [(0.0, 0.0), (0.0, 4e-5), (0.0, 6e-5), (0.0, 1e9), (5e-5, 6e-5), (7e-5, 8e-5), (9e-5, 1e-4), (1e9, 0.0)],
)
@torch.no_grad()
def test_look_ahead_is_the_slow_loop(chain: nn.Module, alone: float, limit: float, seed: int) -> None:
    torch.manual_seed(seed)
    model = shortcutv2v.wrap(chain.eval(), "1", "4", channels=3, example_inputs=(torch.rand(1, 3, 8, 8),))
    for parameter in model.parameters():
        parameter.normal_(std=0.1)
    clip = torch.rand(40, 1, 3, 8, 8)
    stream = model.stream(refresh=EitherSide(7, alone, limit))
    made = Slow(model, clip, 7, alone, limit).run()
    outputs = LookAhead(stream).play(((frame,), {}) for frame in clip)
    for place, output in enumerate(outputs):
        distance = min((abs(place - reference) for reference in made[place]), default=0)
        assert stream.distance == distance, place
        if not made[place]:
            assert torch.equal(output, model.teacher(clip[place]))
            continue
        references = [model.reference(clip[reference])[1] for reference in made[place]]
        carry = model.head(clip[place])
        prediction = model.analyse(references[0], carry, *references[1:])
        assert torch.equal(output, model.tail(carry, model.compose(references[0], carry, prediction)))
