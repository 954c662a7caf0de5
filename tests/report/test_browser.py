"""The page in a real browser: desktop and phone, light and dark, keyboard alone, without a message in the console.

`nox -s browser` installs Chromium and runs this; where there is none, it is skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_page import COUNT, START, Written, write_once  # noqa: F401 (a fixture)

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: nox -s browser")
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium on the PATH: nox -s browser installs one")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as control:
        found = control.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def page(request: pytest.FixtureRequest, browser: Any, written: Written) -> Iterator[Any]:
    """The page; at the end, nothing may be in the console, and nothing may have been fetched."""
    size, scheme = request.param
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=size == "phone"
    )
    shown, said, fetched = context.new_page(), [], []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda call: fetched.append(call.url) if not call.url.startswith(("data:", "file:")) else None)
    shown.goto(written.path.as_uri())
    yield shown
    if folder := os.environ.get("SCREENSHOTS"):
        shown.screenshot(path=Path(folder, f"{size}-{scheme}.png"), full_page=True)
    context.close()
    assert said == []
    assert fetched == []


def status(page: Any) -> str:
    return str(page.locator("#says").text_content())


def frame_of(page: Any) -> int:
    return int(page.locator("#frame").input_value())


def test_it_fits_and_opens_at_the_worst_frame(page: Any, written: Written) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    worst = written.report.scores.worst(1)[0]
    assert status(page).startswith(f"frame {START + worst.number}, ")
    assert f"{worst.psnr['ours']:.2f} dB" in status(page)
    for name in ("input", "teacher", "ours", "error"):
        assert page.evaluate(f"document.getElementById('picture-{name}').naturalWidth") == 80
        assert page.locator(f"#picture-{name}").get_attribute("alt") == f"{name}, frame {START + worst.number}"
    shown = page.locator(".plot .wide" if page.viewport_size["width"] > 700 else ".plot .narrow")
    assert all(plot.is_visible() for plot in shown.all())
    assert page.locator("h1").count() == 1
    assert page.locator("button:not([disabled])").evaluate_all("all => all.every(b => b.textContent.trim() !== '')")


def test_the_keyboard_alone_reaches_everything(page: Any) -> None:
    page.keyboard.press("Home")  # nothing has the focus: the page scrolls
    for _ in range(3):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "frame":
            break
    assert page.evaluate("document.activeElement.id") == "frame"
    page.keyboard.press("Home")
    assert frame_of(page) == 0
    assert "refresh: first" in status(page)
    page.keyboard.press("ArrowRight")
    assert frame_of(page) == 1
    page.keyboard.press("End")
    assert frame_of(page) == COUNT - 1
    page.keyboard.press("ArrowLeft")
    assert frame_of(page) == COUNT - 2
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className || 'button'"))
    assert {"play", "back", "next", "arrows"} <= reached
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")  # the whole page listens
    assert frame_of(page) == COUNT - 3
    page.locator("#back").focus()
    page.keyboard.press("Enter")
    assert frame_of(page) == COUNT - 4


def test_playing_moves_all_players_together(page: Any, written: Written) -> None:
    page.locator("#frame").focus()
    page.keyboard.press("Home")
    page.locator("#play").focus()
    page.keyboard.press("Space")
    page.wait_for_function("Number(document.getElementById('frame').value) >= 3")
    assert page.locator("#says").get_attribute("aria-live") == "off"
    page.keyboard.press("Space")
    assert page.locator("#says").get_attribute("aria-live") == "polite"
    number = frame_of(page)
    page.wait_for_timeout(150)
    assert frame_of(page) == number
    for name in ("input", "teacher", "ours", "error"):
        assert page.locator(f"#picture-{name}").get_attribute("src") == written.data["pictures"][name][number]


def test_a_click_on_the_curve_goes_to_the_frame(page: Any) -> None:
    plot = page.locator(".plot.click > div:visible")
    box, ends = plot.bounding_box(), [float(each) for each in str(plot.get_attribute("data-ends")).split()]
    for number in (0, 5, COUNT - 1):
        share = ends[0] + (ends[1] - ends[0]) * number / (COUNT - 1)
        plot.click(position={"x": share * box["width"], "y": box["height"] / 2})
        assert frame_of(page) == number
        cursor = plot.locator(".cursor").evaluate("c => parseFloat(c.style.left)")
        assert cursor == pytest.approx(100 * share, abs=0.1)


def test_the_worst_frames_and_the_overlays(page: Any, written: Written) -> None:
    worst = [frame.number for frame in written.report.scores.worst(8)]
    buttons = page.locator(".worst button")
    assert buttons.count() == len(worst)
    buttons.nth(len(worst) - 1).click()
    assert frame_of(page) == worst[-1]
    assert page.locator("#overlay path").count() == 0
    page.locator("#arrows").check()
    assert page.locator("#overlay path").count() == len(written.data["arrows"][worst[-1]]) // 4
    page.locator("input[value=mask]").check()
    assert page.locator("#map").get_attribute("src") == written.data["mask"][worst[-1]]
    page.locator("input[value=energy]").check()
    assert page.locator("#map").get_attribute("src") == written.data["energy"][worst[-1]]
    page.locator("#frame").focus()
    page.keyboard.press("Home")  # a refresh: nothing was predicted
    assert page.locator("#map").is_hidden()
    assert page.locator("#overlay path").count() == 0


def test_it_prints_without_controls(page: Any) -> None:
    page.emulate_media(media="print")
    assert page.locator(".controls").is_hidden()
    assert page.locator("#picture-ours").is_visible()
    page.emulate_media(media="screen")
