"""The page in a real browser: headless Chromium by Playwright; skipped where either is missing.

`pip install playwright` brings no browser. A Chromium of the system is taken where there is one, or Playwright's own.
"""

from __future__ import annotations

import os
import re
import shutil

import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("gradio", reason="gradio is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

import tiny_page
from playwright import sync_api

WAIT_MS = 60_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, BROWSERS)), playwright.chromium.executable_path)
        if not os.path.exists(path):
            pytest.skip("no Chromium: neither on the PATH nor by `playwright install chromium`")
        # as root Chromium starts without its sandbox only
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        with playwright.chromium.launch(executable_path=path, args=options) as browser:
            yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from unibrivl.app.folder import PictureFolder
    from unibrivl.app.limits import Limits
    from unibrivl.app.page import served
    from unibrivl.app.studio import Studio

    pipe, folder = tiny_page.pipeline(), tmp_path_factory.mktemp("page")
    pictures = PictureFolder(tiny_page.write_pictures(folder / "pictures"), pipe, folder / "cache")
    with served(Studio(pipe, Limits(megabytes=0.2), folder=pictures)) as address:
        yield address


@pytest.fixture
def page(browser, address):
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        page.locator("#status .told").wait_for()
        yield page


def choose(page, path, where="first"):
    page.locator(f"#{where} input[type=file]").first.set_input_files(path)


def press(page) -> str:
    """The button, and the status it ends with."""
    mark_old(page)
    page.get_by_role("button", name="Draw", exact=True).click()
    return ended(page)


def mark_old(page) -> None:
    page.evaluate("document.querySelector('#status .told').classList.add('old')")


def ended(page) -> str:
    page.wait_for_function("!document.querySelector('#status .old')")  # it says something new
    status = page.get_by_role("status").filter(has=page.locator(".told"))
    sync_api.expect(status).to_have_text(re.compile("Done: |Not done"), timeout=WAIT_MS)
    page.wait_for_function("!document.querySelector('#best .generating')")
    return status.inner_text()


def best(page) -> str:
    return page.locator("#best img").get_attribute("src")


def set_seed(page, seed: int) -> None:
    page.get_by_label("Seed").fill(str(seed))
    page.keyboard.press("Tab")


def test_a_sound_becomes_a_picture_and_another_seed_another(page, address, tmp_path):
    choose(page, tiny_page.write_sound(tmp_path / "dog.wav"))
    page.locator("#first").get_by_role("button", name="Clear").wait_for()
    assert "Done: 4 pictures. Heard: " in press(page)
    first = best(page)
    assert page.locator("#candidates img").count() == 4 and page.locator("#found img").count() == 5
    assert page.locator("#heard tbody tr").count() == 4
    for image in page.locator("#answer img").all():
        assert len(image.get_attribute("alt")) > 20 and image.evaluate("image => image.naturalWidth") > 0
    page.get_by_role("button", name="More settings").click()
    set_seed(page, 1)
    press(page)
    page.wait_for_function("before => document.querySelector('#best img').src !== before", arg=first)
    set_seed(page, 0)
    press(page)
    page.wait_for_function("before => document.querySelector('#best img').src === before", arg=first)
    page.get_by_role("radio", name="Drawing").check()
    press(page)
    sync_api.expect(page.locator("#best figcaption")).to_contain_text("A drawing of a ")
    hosts = {url.split("/")[2] for url in page.asked if url.startswith(("http", "ws"))}
    assert hosts == {address.split("/")[2]}  # nothing was asked of anybody else


def test_a_bad_file_is_told_and_loses_nothing(page, tmp_path):
    choose(page, tiny_page.write_sound(tmp_path / "dog.wav"))
    page.locator("#first").get_by_role("button", name="Clear").wait_for()
    page.get_by_role("button", name="More settings").click()
    set_seed(page, 7)
    page.get_by_role("button", name="Mix in a second sound").click()
    (tmp_path / "bad.wav").write_bytes(b"this is no sound " * 40)
    choose(page, tmp_path / "bad.wav", "second")
    page.locator("#second").get_by_role("button", name="Clear").wait_for()
    words = press(page)
    assert "Not done" in words and "bad.wav" in words and "cannot be read" in words
    assert "Traceback" not in page.inner_text("body") and "/tmp" not in page.inner_text("body")
    assert "from before" not in words  # no picture is shown yet
    assert page.get_by_label("Seed").input_value() == "7"
    page.locator("#second").get_by_role("button", name="Clear").click()
    assert "Done: " in press(page)  # the first sound and the settings are still there


def test_a_file_that_is_too_large_is_told(page, tmp_path):
    choose(page, tiny_page.write_sound(tmp_path / "long.wav", seconds=10))  # 0.32 MB
    sync_api.expect(page.locator("body")).to_contain_text(re.compile("exceed the maximum allowed size"))


def test_the_keyboard_is_enough(page, tmp_path):
    choose(page, tiny_page.write_sound(tmp_path / "dog.wav"))
    page.locator("#first").get_by_role("button", name="Clear").wait_for()
    order = []
    for _ in range(25):
        page.keyboard.press("Tab")
        name = page.evaluate(
            """() => { const e = document.activeElement;
            return (e.closest('#first, #bank, #gain, #draw, #mix, #more') || e).id }"""
        )
        if not order or order[-1] != name:
            order.append(name)
        if name == "draw":
            break
    assert order == ["first", "bank", "gain", "draw"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    mark_old(page)
    page.keyboard.press("Enter")
    assert "Done: " in ended(page)


def test_uploads_go_with_the_page(browser, address, tmp_path):
    folder = os.environ["GRADIO_TEMP_DIR"]

    def kept() -> list[str]:
        return [name for _, _, names in os.walk(folder) for name in names if name.startswith("visitor")]

    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.locator("#status .told").wait_for(timeout=WAIT_MS)
    choose(page, tiny_page.write_sound(tmp_path / "visitor.wav", seed=9))
    page.locator("#first").get_by_role("button", name="Clear").wait_for(timeout=WAIT_MS)
    page.wait_for_timeout(1000)
    assert kept() == ["visitor.wav"]
    choose_again = tiny_page.write_sound(tmp_path / "visitor2.wav", seed=10)
    page.locator("#first").get_by_role("button", name="Clear").click()
    choose(page, choose_again)
    page.locator("#first").get_by_role("button", name="Clear").wait_for(timeout=WAIT_MS)
    page.wait_for_timeout(1000)
    assert kept() == ["visitor2.wav"]
    context.close()
    for _ in range(100):
        if not kept():
            break
        other = browser.new_page()
        other.wait_for_timeout(200)
        other.close()
    assert kept() == []
