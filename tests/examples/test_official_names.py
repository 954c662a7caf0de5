"""Full-size networks have the names and shapes of the published files (built on the meta device: no memory)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from examples.unsup.teacher import build_teacher as build_unsup
from examples.vid2vid.teacher import build_teacher as build_vid2vid
from examples.vtoonify.teacher import build_teacher as build_vtoonify
from official_cases import digest, entries, manifest

BUILD = {"unsup": build_unsup, "vid2vid": build_vid2vid, "vtoonify": build_vtoonify}
COMPOSITE = {"prev_output_nc": 6, "ngf": 128, "n_downsampling": 3, "n_blocks": 9, "norm": "batch"}
UNSUP = {"input_nc": 3, "output_nc": 3, "ngf": 64, "n_blocks": 6}
# Digest of the published names and shapes, and the number of parameters.
NETWORKS: dict[str, tuple[dict[str, Any], str, int]] = {
    "unsup_resnet6_G": ({**UNSUP, "use_dropout": False}, "dd9424edac1f3b16", 7837699),
    "unsup_resnet6_G_dropout": ({**UNSUP, "use_dropout": True}, "6abedd6611183bf6", 7837699),
    "vid2vid_E2F_netG0": (
        {**COMPOSITE, "input_nc": 45, "fg": False, "no_flow": False},
        "fb3686958506fb7f",
        364996230,
    ),
    "vid2vid_E2F_netG0_noflow": (
        {**COMPOSITE, "input_nc": 45, "fg": False, "no_flow": True},
        "2a7d6555f9040c11",
        283259523,
    ),
    "vid2vid_L2C_netG0": ({**COMPOSITE, "input_nc": 108, "fg": True, "no_flow": False}, "b0e86e7288e7d61c", 411335241),
    "vid2vid_E2F_single_E": (
        {"input_nc": 3, "output_nc": 16, "ngf": 16, "n_downsampling": 4},
        "f72264d946276b10",
        799008,
    ),
    "vid2vid_E2F_single_G": (
        {"input_nc": 15, "nz": 16, "ngf": 64, "n_downsampling": 3, "n_blocks": 9},
        "44594f73db6d0429",
        48453203,
    ),
    "vid2vid_L2C_single_G_512": (
        {"input_nc": 35, "ngf": 64, "n_downsampling": 3, "n_blocks": 9},
        "b0b71cc0ce594352",
        45693699,
    ),
    "vtoonify_dualstylegan": ({"backbone": "dualstylegan"}, "52d186ae175b6d18", 163812547),
    "vtoonify_toonify": ({"backbone": "toonify"}, "0baa078961da5cb7", 78828991),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    config, expected, parameters = NETWORKS[name]
    with torch.device("meta"):
        net = BUILD[name.partition("_")[0]](config)
    assert digest(entries(net)) == expected
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_the_official_list_entry_by_entry(name: str) -> None:
    official = manifest(name)
    with torch.device("meta"):
        net = BUILD[name.partition("_")[0]](official["config"])
    assert entries(net) == official["entries"]
    assert digest(official["entries"]) == NETWORKS[name][1]
