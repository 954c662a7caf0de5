"""The real teachers' features come out of the cache as they went in: recurrent ones, branches, style codes, crops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from examples.unsup.adapter import UnsupAdapter
from examples.unsup.teacher import build_teacher as build_unsup
from examples.vid2vid.adapter import Vid2VidAdapter
from examples.vid2vid.maps import LabelMaps, pack_labels
from examples.vid2vid.teacher import build_teacher as build_vid2vid
from examples.vtoonify.adapter import VToonifyAdapter
from examples.vtoonify.teacher import build_teacher as build_vtoonify
from torch import Tensor, nn

from shortcutv2v import Adapter
from shortcutv2v.distill.cache import FeatureCache
from shortcutv2v.distill.cache.features import Binder, collate
from shortcutv2v.distill.data import Sequences


def _vid2vid() -> tuple[Adapter, Tensor]:
    net = build_vid2vid({"input_nc": 12, "prev_output_nc": 6, "ngf": 2, "n_blocks": 2, "fg": False})
    labels, instances = torch.randint(0, 3, (7, 32, 32)), torch.randint(0, 9, (7, 32, 32))
    clip = (pack_labels(labels, instances) * 255).round().byte()
    return Vid2VidAdapter(net, encode=LabelMaps(3), first=nn.Conv2d(4, 3, 1)), clip


def _unsup() -> tuple[Adapter, Tensor]:
    net = build_unsup({"input_nc": 3, "output_nc": 3, "ngf": 2, "n_blocks": 2})
    return UnsupAdapter(net), torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)


def _vtoonify() -> tuple[Adapter, Tensor]:
    channels = {4: 6, 8: 6, 16: 6, 32: 6, 64: 5, 128: 4}
    config = {"in_size": 64, "out_size": 128, "style_channels": 8, "num_mlps": 7, "backbone": "dualstylegan"}
    net = build_vtoonify({**config, "generator_channels": channels})
    clip = torch.randint(0, 256, (5, 22, 32, 32), dtype=torch.uint8)
    return VToonifyAdapter(net, torch.randn(12, 8), 0.7), clip


def live(adapter: Adapter, clip: Tensor) -> list[Tensor]:
    """The teacher's pictures of the frames that it makes."""
    pictures, state = [], adapter.start()
    for frame in clip[:, None].float() / 255:
        output = adapter.opening(frame, state)
        if output is None:
            args, kwargs = adapter.inputs(frame, state)
            output = adapter.teacher(*args, **kwargs)
            pictures.append(adapter.image(output))
        state = adapter.advance(state, frame, output)
    return pictures


@torch.no_grad()
@pytest.mark.parametrize("build", [_vid2vid, _unsup, _vtoonify])
def test_pictures_of_cached_features_are_the_teachers(
    build: Callable[[], tuple[Adapter, Tensor]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    adapter, clip = build()
    model = adapter.wrap(clip[:1].float() / 255)
    cache, binder = FeatureCache(tmp_path, model, adapter), Binder(model, adapter)
    pictures = live(adapter, clip)
    features = cache.features(clip)
    for picture, stored in zip(pictures, features, strict=True):
        carry, f = binder(*collate([[stored]]))
        torch.testing.assert_close(adapter.image(model.tail(carry, f)), picture, rtol=0, atol=0.02)
    windows = Sequences([clip], 3, crop=(16, 16), cache=cache)
    batch = [binder(one) for one in collate([windows[0], windows[1]])]
    assert len(batch) == 3
    for carry, f in batch:
        height, width = (16 * size // 32 for size in pictures[0].shape[-2:])
        assert adapter.image(model.tail(carry, f)).shape == (2, 3, height, width)
