"""The study's page in a real browser: headless Chromium by Playwright; skipped where either is missing."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

import real_browser
import tiny_study
from playwright import sync_api

from unibrivl.evaluation.study import build, report, served

WAIT_MS = 30_000
CHOICES = ("left", "right", "neither")


@pytest.fixture(scope="module")
def browser():
    sync_api.expect.set_options(timeout=WAIT_MS)
    with real_browser.opened() as browser:
        yield browser


@pytest.fixture
def server(tmp_path):
    table = tiny_study.write_table(tmp_path / "table", systems=("ours",), each=1, photos=1)
    with served(build(table, tmp_path / "study", num_checks=1)) as server:
        yield server


@pytest.fixture
def page(browser, server):
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(server.address)
        page.get_by_role("button", name="I agree and begin").wait_for()
        yield page


def agree(page):
    page.get_by_role("button", name="I agree and begin").click()
    ready(page, 1)


def ready(page, number: int) -> None:
    """The trial with this number is shown, its sound not yet heard."""
    sync_api.expect(page.locator("#place")).to_have_text(f"{number} of 4")
    sync_api.expect(page.get_by_role("button", name="Play the sound")).to_be_enabled()


def hear(page) -> None:
    page.get_by_role("button", name="Play the sound").click()
    sync_api.expect(page.locator("#left")).to_be_enabled()


def enabled(page) -> list[bool]:
    return [page.locator(f"#{choice}").is_enabled() for choice in CHOICES]


def participant(page) -> str:
    return page.evaluate("localStorage.getItem(Object.keys(localStorage)[0])")


def test_no_answer_before_the_sound_was_heard(page, server):
    agree(page)
    assert enabled(page) == [False] * 3
    for key in "120":
        page.keyboard.press(key)
    page.locator("#left").click(force=True)
    page.wait_for_timeout(200)
    assert not server.study.answers_path.read_bytes()
    sync_api.expect(page.get_by_role("status")).to_have_text("Hear the sound to its end first.")
    page.evaluate(
        "sound.addEventListener('playing', () => { window.early = document.getElementById('left').disabled })"
    )
    hear(page)
    assert page.evaluate("window.early") is True  # while it played
    assert enabled(page) == [True] * 3
    page.locator("#right").click()
    ready(page, 2)
    assert enabled(page) == [False] * 3  # the next sound is another
    (line,) = tiny_study.lines(server.study)
    assert line["choice"] == "right" and line["audio_played"] is True and 0 <= line["rt_ms"] < WAIT_MS


def test_the_keyboard_is_enough_and_a_reload_goes_on(page, server):
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    ready(page, 1)
    for number, key in enumerate("120", 1):
        assert page.evaluate("document.activeElement.id") == "play"
        page.keyboard.press("Space")
        sync_api.expect(page.locator("#neither")).to_be_enabled()
        page.keyboard.press(f"Control+{key}")  # the browser's, not ours
        page.keyboard.press(key)
        ready(page, number + 1)
    assert [line["choice"] for line in tiny_study.lines(server.study)] == list(CHOICES)
    who = participant(page)
    shown = [page.locator(f"#{side}-image").get_attribute("src") for side in ("left", "right")]
    page.reload()
    ready(page, 4)
    assert participant(page) == who and not page.locator("#consent").is_visible()
    assert shown == [page.locator(f"#{side}-image").get_attribute("src") for side in ("left", "right")]
    page.keyboard.press("Space")
    sync_api.expect(page.locator("#neither")).to_be_enabled()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "left"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    sync_api.expect(page.get_by_role("heading", name="Thank you")).to_be_focused()
    page.reload()
    sync_api.expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    sync_api.expect(page.locator("#number")).to_have_text(who)
    session = [one.trial for one in server.study.session(who)]
    assert [line["trial_id"] for line in tiny_study.lines(server.study)] == session
    assert report(server.study.folder).told["participants"]["finished"] == 1


def test_what_is_seen_is_what_the_log_says(page, server):
    """The pictures of the page by their pixels: the one a participant chose is the one that is counted."""
    agree(page)
    for number in range(1, 5):
        one = server.study.session(participant(page))[number - 1]
        right = "left" if one.left == server.study.trials[one.trial]["positive"] else "right"
        hear(page)
        name = page.locator(f"#{right}-image").get_attribute("src").removeprefix("media/")
        assert name == server.study.trials[one.trial]["positive"]
        page.get_by_role("button", name={"left": "Picture 1", "right": "Picture 2"}[right]).click()
        if number < 4:
            ready(page, number + 1)
    sync_api.expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    (row,) = report(server.study.folder).told["results"]
    assert row["percent"]["positive"] == 100 and row["n"] == 3


def test_nothing_is_asked_of_others_and_nothing_is_given_away(page, server):
    agree(page)
    bodies = [request.response().text() for request in page.asked if "session" in request.url or "json" in request.url]
    assert len(bodies) == 2
    for word in ("positive", "dog", "ours", "noise", "check", "seed"):
        assert all(word not in body for body in bodies) and word not in page.locator("main").inner_html()
    for side, alt in (("left", "Picture 1"), ("right", "Picture 2")):
        image = page.locator(f"#{side}-image")
        assert image.get_attribute("alt") == alt and image.evaluate("image => image.naturalWidth") == 48
    hosts = {request.url.split("/")[2] for request in page.asked if request.url.startswith(("http", "ws"))}
    assert hosts == {server.address.split("/")[2]} and page.said == []
    tried = page.evaluate("fetch('http://127.0.0.2:9/').then(() => 'sent', () => 'refused')")
    assert tried == "refused" and any("connect-src" in words for words in page.said)


def test_an_answer_that_is_not_saved_is_told_and_can_be_given_again(page, server):
    agree(page)
    hear(page)
    page.route("**/answer", lambda route: route.abort())
    page.keyboard.press("1")
    sync_api.expect(page.get_by_role("alert")).to_contain_text("could not be saved")
    assert enabled(page) == [True] * 3
    page.unroute("**/answer")
    page.keyboard.press("2")
    ready(page, 2)
    sync_api.expect(page.get_by_role("alert")).to_have_text("")
    other = page.context.new_page()  # a second tab answers first
    other.goto(server.address)
    ready(other, 2)
    hear(other)
    other.keyboard.press("1")
    ready(other, 3)
    hear(page)
    page.keyboard.press("0")
    ready(page, 3)
    assert [line["choice"] for line in tiny_study.lines(server.study)] == ["right", "left"]


def test_a_narrow_screen_shows_both_pictures_at_once(browser, server):
    with browser.new_context(viewport={"width": 320, "height": 640}, color_scheme="dark") as context:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(server.address)
        agree(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        boxes = [page.locator(f"#{choice}").bounding_box() for choice in ("left", "right", "neither", "play")]
        assert boxes[0]["y"] == boxes[1]["y"] and all(box["y"] + box["height"] <= 640 for box in boxes)
        assert all(box["height"] >= 44 for box in boxes)


def test_a_browser_without_scripts_is_told(browser, server):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(server.address)
        assert re.search("needs JavaScript", page.locator("body").inner_text())
