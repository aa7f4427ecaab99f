"""Pages about answers in a real browser: what it loads, says and plays, and how wide they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from answers import an_answer
from browser import Browser, chromium, without

from echopix_cli.cli.report import index, page, read_page, url_of
from echopix_cli.cli.report_exhibits import Exhibitor
from echopix_cli.cli.report_sections import section_of
from echopix_cli.media import DecodePlan
from echopix_cli.results import KeptToken, Moment

NAME = "a_very_long_name_" * 9 + "<i>\"'&.mp4"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        without("there is no Chromium here: apt-get install chromium")
    try:
        opened = Browser(program, tmp_path_factory.mktemp("profile"))
    except BrokenPipeError:
        without(f"{program} does not start here")
    yield opened
    opened.close()


def test_a_browser_that_is_required_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browser.REQUIRED", False)
    with pytest.raises(pytest.skip.Exception, match="none"):
        without("none")
    monkeypatch.setattr("browser.REQUIRED", True)
    with pytest.raises(pytest.fail.Exception, match="ECHOPIX_REQUIRE_BROWSER=1, but none"):
        without("none")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, clips: dict[str, Path]) -> Path:
    """A page with two questions about a clip that lies beside it."""
    folder = tmp_path_factory.mktemp("page")
    media = folder / NAME
    media.write_bytes(clips["both"].read_bytes())
    tokens = (
        KeptToken(1.0, 1.5, "video", 0.6, (0.0, 0.0, 0.25, 0.5)),
        KeptToken(0.2, 0.6, "audio", 0.4),
    )
    moments = (Moment(1.0, 1.5, "video", 0.6), Moment(0.2, 0.6, "audio", 0.4))
    answers = [
        an_answer(moments, media=str(media), question=question, answer=answer, end=3.0, kept_tokens=tokens)
        for question, answer in (("What? " + "<b>" * 60, "a piano"), ("Who?", "x" * 400))
    ]
    exhibitor = Exhibitor(media, DecodePlan())
    sections = [section_of(answer, exhibitor.exhibits(answer)) for answer in answers]
    out = folder / "page.html"
    out.write_bytes(page(NAME, sections, "video", url_of(media, folder)))
    found = read_page(out.read_bytes())
    assert found is not None
    (folder / "index.html").write_bytes(index([("page.html", found)]))
    (folder / "away.html").write_bytes(page(NAME, sections, "video", url_of(folder / "gone.mp4", folder)))
    return folder


@pytest.mark.parametrize("name", ["page.html", "index.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_pages_load_nothing_from_elsewhere_and_fit(
    browser: Browser, written: Path, name: str, scheme: str, width: int
) -> None:
    url = (written / name).as_uri()
    browser.open(url, width, scheme)
    assert browser.complaints == []
    asked = [request for request in browser.requests if not request.startswith("data:")]
    assert asked[0] == url and len(set(asked)) == (2 if name == "page.html" else 1)
    assert all(request.startswith(written.as_uri()) for request in asked)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 23, 27)")
    assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)")


def test_buttons_play_moments(browser: Browser, written: Path) -> None:
    browser.open((written / "page.html").as_uri(), 1200)
    assert browser.evaluate("[...document.querySelectorAll('button')].every(each => !each.hidden)")
    played = """new Promise(done => {
        const player = document.querySelector("video"), started = [];
        player.addEventListener("seeked", () => started.push(player.currentTime), { once: true });
        player.addEventListener("pause", () => done([started[0], player.currentTime]));
        document.querySelector("button").click();
    })"""
    first, last = browser.evaluate(played)
    assert first == pytest.approx(1.0, abs=0.05)
    assert 1.5 <= last < 2.5


def test_buttons_that_can_play_nothing_are_not_shown(browser: Browser, written: Path) -> None:
    browser.open((written / "away.html").as_uri(), 1200)
    shown = "[...document.querySelectorAll('button, video')].filter(each => each.checkVisibility()).length"
    assert browser.evaluate(shown) == 0
    assert browser.evaluate("document.getElementById('unplayable').checkVisibility()")
    assert NAME in browser.evaluate("document.body.innerText")


def test_without_javascript_all_can_be_read(browser: Browser, written: Path) -> None:
    browser.open((written / "page.html").as_uri(), 1200)
    with_script = browser.evaluate("document.querySelector('main').innerText.replace(/▶.*/g, '').replace(/\\s+/g, ' ')")
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open((written / "page.html").as_uri(), 1200)
        assert browser.evaluate("document.querySelectorAll('button:not([hidden])').length") == 0
        text = browser.evaluate("document.querySelector('main').innerText.replace(/\\s+/g, ' ')")
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
    assert text == with_script


CONTRAST = """(() => {
    const channel = value => (value /= 255, value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const parse = color => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const behind = element => {
        for (; element; element = element.parentElement) {
            const color = parse(getComputedStyle(element).backgroundColor);
            if (color.length === 3 || color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    let worst = 21;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("svg, script")) continue;
        const [one, two] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
        worst = Math.min(worst, (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05));
    }
    return worst;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Browser, written: Path, scheme: str) -> None:
    browser.open((written / "page.html").as_uri(), 1200, scheme)
    assert browser.evaluate(CONTRAST) >= 4.5
