import pytest
import torch

from shortcutv2v import measure
from shortcutv2v.errors import InputError


def test_psnr_in_both_scales():
    a, b = torch.full((2, 3, 8, 9), 0.5), torch.full((2, 3, 8, 9), 0.51)
    assert measure.psnr(a, b) == pytest.approx(40.0, abs=1e-3)
    assert measure.psnr(255 * a, 255 * b, max_value=255) == pytest.approx(40.0, abs=1e-3)
    assert measure.psnr(a, a) == float("inf")


def test_ssim_falls_with_noise():
    g = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 24, 20, generator=g)
    noise = torch.rand(1, 3, 24, 20, generator=g) - 0.5
    values = [measure.ssim(picture + s * noise, picture) for s in (0.0, 0.1, 0.5)]
    assert values[0] == pytest.approx(1.0)
    assert values == sorted(values, reverse=True)


def test_ssim_of_pictures_below_its_window():
    assert measure.ssim(torch.ones(1, 3, 6, 6), torch.ones(1, 3, 6, 6)) == pytest.approx(1.0)
    with pytest.raises(InputError, match="6x6"):
        measure.ssim(torch.zeros(1, 3, 6, 5), torch.zeros(1, 3, 6, 5))


def test_flicker_is_blind_to_a_constant_error_and_sees_a_jump():
    video = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    jump = torch.tensor([0.0, 0.0, 0.3, 0.3]).view(4, 1, 1, 1)
    assert measure.flicker(video + 0.2, video) == pytest.approx(0, abs=1e-6)
    assert measure.flicker(video + jump, video) == pytest.approx(0.1, abs=1e-6)


def test_shapes_must_match():
    a = torch.zeros(2, 3, 12, 12)
    for metric in (measure.psnr, measure.ssim, measure.flicker):
        with pytest.raises(InputError, match="differ in shape"):
            metric(a, a[..., 1:])
    with pytest.raises(InputError, match="at least two frames"):
        measure.flicker(a[:1], a[:1])
