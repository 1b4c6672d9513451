"""The page in a real browser: headless Chromium by Playwright; skipped where either is missing."""

from __future__ import annotations

import os
import re

import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("gradio", reason="gradio is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

import real_browser
import tiny_archive
import tiny_audio_token
import tiny_page
from playwright import sync_api

WAIT_MS = 60_000


@pytest.fixture(scope="module")
def browser():
    with real_browser.opened() as browser:
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


@pytest.fixture(scope="module")
def with_tabs():
    """A page of a model whose sounds are words, too."""
    from unibrivl.app.limits import Limits
    from unibrivl.app.page import served
    from unibrivl.app.studio import Studio

    studio = Studio(tiny_page.pipeline(), Limits(megabytes=0.2))
    with served(studio, workshop=tiny_page.workshop(studio)) as address:
        yield address


@pytest.fixture(scope="module")
def with_speech(tmp_path_factory):
    """A page that takes spoken sentences, too; of long ones nothing is understood."""
    from unibrivl.app.limits import Limits
    from unibrivl.app.page import served
    from unibrivl.app.studio import Studio

    def write(clips) -> list[str]:
        return ["a dog runs" if len(clip) < 16_000 else "" for clip in clips]

    salon = tiny_page.salon(tmp_path_factory.mktemp("salon"), write)
    with served(Studio(tiny_page.pipeline(), Limits(megabytes=0.2)), salon=salon) as address:
        yield address


@pytest.fixture(scope="module")
def with_index(tmp_path_factory):
    """A page with an index, which says why as well; one of its pictures has gone since it was made."""
    from unibrivl.app.archive import Archive
    from unibrivl.app.limits import Limits
    from unibrivl.app.page import served
    from unibrivl.app.studio import Studio
    from unibrivl.app.witness import Witness
    from unibrivl.embedder import Embedder

    folder, limits = tmp_path_factory.mktemp("index"), Limits(megabytes=0.2)
    studio = Studio(tiny_page.pipeline(), limits)
    embedder = Embedder(studio.pipe.listener)
    files = tiny_archive.write_files(folder / "files")
    archive = Archive(tiny_archive.index_of(files, folder / "index", embedder), embedder, limits, studio.lock)
    (files / "red.png").unlink()
    with served(studio, archive=archive, witness=Witness(embedder, limits, studio.lock)) as address:
        yield address


@pytest.fixture
def page(browser, address):
    yield from opened(browser, address)


@pytest.fixture
def tabs(browser, with_tabs):
    yield from opened(browser, with_tabs)


@pytest.fixture
def index(browser, with_index):
    yield from opened(browser, with_index)


@pytest.fixture
def speech(browser, with_speech):
    yield from opened(browser, with_speech)


def opened(browser, address):
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


def press(page, name="Draw", tab="") -> str:
    """The button, and the status it ends with."""
    mark_old(page, tab)
    page.get_by_role("button", name=name, exact=True).click()
    return ended(page, tab)


def mark_old(page, tab="") -> None:
    page.evaluate(f"document.querySelector('#{tab}status .told').classList.add('old')")


def ended(page, tab="") -> str:
    page.wait_for_function(f"!document.querySelector('#{tab}status .old')")  # it says something new
    status = page.get_by_role("status").filter(has=page.locator(".told"))  # of the tab that is open
    sync_api.expect(status).to_have_text(re.compile("Done: |Not done"), timeout=WAIT_MS)
    page.wait_for_function(f"!document.querySelector('#{tab}best .generating')")
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


def chosen(page, where, path):
    choose(page, path, where)
    page.locator(f"#{where}").get_by_role("button", name=re.compile("Clear|Remove")).wait_for()


def test_a_sound_changes_a_picture_in_its_tab(tabs, with_tabs, tmp_path):
    chosen(tabs, "first", tiny_page.write_sound(tmp_path / "dog.wav"))
    tabs.get_by_role("tab", name="Edit a picture").click()
    assert "There is no sound yet" in press(tabs, "Change", "edit-")
    chosen(tabs, "edit-sound", tiny_page.write_sound(tmp_path / "rooster.wav", seed=1))
    tabs.get_by_role("button", name="More settings").click()
    tabs.get_by_label("Steps (more take longer)").first.fill("2")
    assert "2 pictures, without the sound and with it" in press(tabs, "Change", "edit-")
    (tmp_path / "bad.png").write_bytes(b"this is no picture")
    chosen(tabs, "edit-picture", tmp_path / "bad.png")
    words = press(tabs, "Change", "edit-")
    assert "bad.png" in words and "cannot be read" in words and "from before" in words
    tabs.locator("#edit-picture").get_by_role("button", name=re.compile("Clear|Remove")).click()
    tiny_audio_token.picture(side=48).save(tmp_path / "cat.png")
    chosen(tabs, "edit-picture", tmp_path / "cat.png")
    assert "your picture, and what the sound made of it" in press(tabs, "Change", "edit-")
    first = tabs.locator("#edit-best .after img").get_attribute("src")
    for image in tabs.locator("#edit-answer img").all():
        assert len(image.get_attribute("alt")) > 20 and image.evaluate("image => image.naturalWidth") > 0
    assert not tabs.get_by_label("How much may change (percent)").first.is_visible()
    tabs.get_by_role("radio", name="Blur, then draw anew (SDEdit)").check()
    tabs.get_by_label("How much may change (percent)").first.wait_for()
    press(tabs, "Change", "edit-")
    assert tabs.locator("#edit-best .after img").get_attribute("src") != first
    tabs.get_by_role("tab", name="Draw a sound").click()
    assert "Done: 4 pictures" in press(tabs)  # the sound of this tab is still there
    assert "Traceback" not in tabs.inner_text("body")
    hosts = {url.split("/")[2] for url in tabs.asked if url.startswith(("http", "ws"))}
    assert hosts == {with_tabs.split("/")[2]}


def test_words_are_drawn_in_the_style_of_a_sound_by_keyboard_alone(tabs, tmp_path):
    tabs.get_by_role("tab", name="Draw a sound").focus()
    order = []
    for key in ("Tab", "Tab", "Enter"):
        tabs.keyboard.press(key)
        order.append(tabs.evaluate("document.activeElement.innerText"))
    assert order[-1] == "Style"
    assert tabs.get_by_role("tab", name="Style").get_attribute("aria-selected") == "true"
    chosen(tabs, "style-sound", tiny_page.write_sound(tmp_path / "dog.wav"))
    seen = []
    for _ in range(25):
        tabs.keyboard.press("Tab")
        name = tabs.evaluate(
            """() => { const e = document.activeElement; return (e.closest('[id^=style-]') || e).id }"""
        )
        if not seen or seen[-1] != name:
            seen.append(name)
        if name == "style-press":
            break
    assert seen == ["style-sound", "style-prompt", "style-picture", "style-press"]
    mark_old(tabs, "style-")
    tabs.keyboard.press("Enter")
    assert "Done: 1 picture. Heard: " in ended(tabs, "style-")
    sync_api.expect(tabs.locator("#style-best figcaption")).to_contain_text("in the style of <audio>")
    assert tabs.get_by_role("region", name="What came of it").count() == 1  # of hidden tabs nothing is read


def test_a_spoken_sentence_finds_pictures_and_its_words_can_be_corrected(speech, with_speech, tmp_path):
    speech.get_by_role("tab", name="Say it").click()
    assert "There is no sound yet" in press(speech, "Find pictures", "say-")
    chosen(speech, "say-sound", tiny_page.write_sound(tmp_path / "said.wav"))
    assert press(speech, "Find pictures", "say-") == 'Done: 8 pictures. Understood: "a dog runs"'
    words = speech.get_by_label("What was said")
    sync_api.expect(words).to_have_value("a dog runs")
    assert speech.locator("#say-heard .said").inner_text() == "\u201ca dog runs\u201d"
    shown = speech.locator("#say-best").inner_text()
    assert shown.count("by the words") == shown.count("by the voice") == 8
    for image in speech.locator("#say-answer img").all():
        assert len(image.get_attribute("alt")) > 20 and image.evaluate("image => image.naturalWidth") > 0
    words.focus()
    speech.keyboard.press("Tab")
    assert speech.evaluate("document.activeElement.id") == "say-again"
    words.fill("a cat")
    mark_old(speech, "say-")
    speech.keyboard.press("Enter")
    assert ended(speech, "say-") == 'Done: 8 pictures. Your words: "a cat"'
    assert speech.locator("#say-best").inner_text() != shown
    speech.locator("#say-sound").get_by_role("button", name="Clear").click()
    sync_api.expect(words).to_have_value("")  # they were of the other sound
    chosen(speech, "say-sound", tiny_page.write_sound(tmp_path / "mumbled.wav", seconds=1.2))
    refused = press(speech, "Rank again with these words", "say-")
    assert "There are no words to rank by" in refused and "from before" in refused
    assert "Nothing was understood" in press(speech, "Find pictures", "say-")
    assert speech.get_by_role("region", name="What you say").count() == 1
    assert "Traceback" not in speech.inner_text("body")
    hosts = {url.split("/")[2] for url in speech.asked if url.startswith(("http", "ws"))}
    assert hosts == {with_speech.split("/")[2]}


def test_a_sound_finds_what_is_in_an_index(index, with_index, tmp_path):
    index.get_by_role("tab", name="Find").click()
    assert "Nothing is asked for yet" in press(index, "Find", "find-")
    chosen(index, "find-sound", tiny_archive.write_sound(tmp_path / "high.wav", 880))
    assert "Done: 6 found. The nearest is files/880.wav." in press(index, "Find", "find-")
    assert index.locator("#find-best figure").count() == 6 and index.locator("#find-best audio").count() == 3
    first = index.locator("#find-best .name").all_inner_texts()
    assert "The file is gone." in index.locator("#find-best li").filter(has_text="files/red.png").inner_text()
    for image in index.locator("#find-answer img").all():
        assert len(image.get_attribute("alt")) > 20 and image.evaluate("image => image.naturalWidth") > 0
    player = index.locator("#find-best audio").first
    assert player.get_attribute("aria-label") == "Sound, number 1: files/880.wav, 0.0 to 1.0 s"
    index.wait_for_function("Math.abs(document.querySelector('#find-best audio').duration - 1) < 0.1")  # it plays
    (tmp_path / "bad.wav").write_bytes(b"this is no sound " * 40)
    index.locator("#find-sound").get_by_role("button", name="Clear").click()
    chosen(index, "find-sound", tmp_path / "bad.wav")
    words = press(index, "Find", "find-")
    assert "Not done" in words and "bad.wav" in words and "cannot be read" in words and "from before" in words
    assert index.locator("#find-best .name").all_inner_texts() == first
    index.locator("#find-sound").get_by_role("button", name="Clear").click()
    chosen(index, "find-sound", tiny_archive.write_sound(tmp_path / "low.wav", 220))
    index.get_by_role("radio", name="Sounds").check()
    said = index.get_by_role("textbox", name="Words")
    said.fill("a cat")
    mark_old(index, "find-")
    said.press("Enter")
    assert "Done: 3 found." in ended(index, "find-")
    assert index.locator("#find-best .name").all_inner_texts() != first[:3]
    assert index.locator("#find-best").inner_text().count("The words") == 3
    assert "Traceback" not in index.inner_text("body") and "/tmp" not in index.inner_text("body")
    assert index.get_by_role("region", name="What you look for").count() == 1
    hosts = {url.split("/")[2] for url in index.asked if url.startswith(("http", "ws"))}
    assert hosts == {with_index.split("/")[2]}


def test_why_is_shown_by_keyboard_alone(index, tmp_path):
    index.get_by_role("tab", name="Why").click()
    chosen(index, "why-sound", tiny_archive.write_sound(tmp_path / "high.wav", 880))
    (tmp_path / "bad.png").write_bytes(b"this is no picture")
    chosen(index, "why-picture", tmp_path / "bad.png")
    words = press(index, "Explain", "why-")
    assert "bad.png" in words and "cannot be read" in words and "from before" not in words
    index.locator("#why-picture").get_by_role("button", name=re.compile("Clear|Remove")).click()
    chosen(index, "why-picture", tiny_archive.write_picture(tmp_path / "good.png"))
    index.get_by_role("tab", name="Why").focus()
    seen = []
    for _ in range(25):
        index.keyboard.press("Tab")
        name = index.evaluate("() => { const e = document.activeElement; return (e.closest('[id^=why-]') || e).id }")
        if not seen or seen[-1] != name:
            seen.append(name)
        if name == "why-press":
            break
    assert seen == ["why-sound", "why-picture", "why-press"]
    mark_old(index, "why-")
    index.keyboard.press("Enter")
    assert "Done: the score is " in ended(index, "why-")
    image = index.locator("#why-best img")
    assert image.evaluate("image => image.naturalWidth") == 860
    assert "the score is " in image.get_attribute("alt")
    index.get_by_text("The numbers as tables").focus()
    index.keyboard.press("Enter")
    assert index.locator("#why-heard table").count() == 3
    assert index.get_by_role("table", name="What hiding each stretch of the sound costs").is_visible()
    assert index.get_by_role("status").filter(has=index.locator(".told")).count() == 1
