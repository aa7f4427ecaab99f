"""Pages of a batch: one a file, an index, and what an interruption and a second run leave of them."""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from answers import an_answer
from pages import check

from echopix_cli.batch.tasks import Task
from echopix_cli.cli import report_folder
from echopix_cli.cli.report import Section, key_of
from echopix_cli.cli.report import page as report_page
from echopix_cli.cli.report_folder import ReportFolder, page_name
from echopix_cli.media import DecodePlan
from echopix_cli.results import Answer


@pytest.fixture
def folder(clips: dict[str, Path], tmp_path: Path) -> Path:
    media = tmp_path / "media"
    media.mkdir()
    (media / "a <b>.mp4").symlink_to(clips["both"])
    (media / "dark.m4a").symlink_to(clips["dark"])
    (media / "broken.mp4").write_bytes(b"no media\n" * 9)
    return media


def test_pages_and_index(run, folder: Path, tmp_path: Path) -> None:
    pages, out = tmp_path / "pages", tmp_path / "answers.jsonl"
    first = run("ask", folder, "-Q", "What?", "-o", out, "--report", pages, "-q")
    assert first.code == 1  # of broken.mp4
    names = {file.name for file in pages.iterdir()}
    assert names == {page_name(str(folder / name)) for name in ("a <b>.mp4", "dark.m4a")} | {"index.html"}
    page = pages / page_name(str(folder / "a <b>.mp4"))
    assert len(check(page.read_text()).all("section")) == 1
    # Another question is added to what is there; what was answered before is not asked again, and stays.
    again = run("ask", folder, "-Q", "What?", "-Q", "Who?", "-o", out, "--report", pages, "-q")
    assert again.code == 1
    parsed = check(page.read_text())
    assert len(parsed.all("section")) == 2
    assert "What?" in parsed.text and "Who?" in parsed.text
    index = check((pages / "index.html").read_text())
    assert "Answers about 2 files" in index.text and "a <b>.mp4" in index.text
    links = [unquote(link["href"] or "") for link in index.all("a")]
    targets = {link.partition("#")[0].removeprefix("./") for link in links}
    assert targets == names - {"index.html"}
    for link in links:
        name, _, place = link.removeprefix("./").partition("#")
        assert not place or f'id="{place}"' in (pages / name).read_text()
    assert len([link for link in links if "#" in link]) == 4


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_who_may_read_pages_may_read_them_after_the_next_run(
    run, clips: dict[str, Path], tmp_path: Path, mode: int
) -> None:
    """Whatever the umask gives to new ones, which are those of another file."""
    pages = tmp_path / "pages"
    ask = ("ask", "--report", pages, "-q", "-Q")
    assert run(*ask, "What?", clips["dark"], clips["silent"]).code == 0
    before = list(pages.iterdir())
    for page in before:
        page.chmod(mode)
    old = os.umask(0o077 if mode == 0o664 else 0o022)
    try:
        assert run(*ask, "Who?", clips["dark"], clips["both"]).code == 0
    finally:
        os.umask(old)
    assert {page.stat().st_mode & 0o777 for page in before} == {mode}
    (new,) = set(pages.iterdir()) - set(before)
    assert new.stat().st_mode & 0o777 == (0o600 if mode == 0o664 else 0o644)


def test_answers_of_runs_without_pages_are_said(run, folder: Path, tmp_path: Path) -> None:
    pages, out = tmp_path / "pages", tmp_path / "answers.jsonl"
    media = [folder / "a <b>.mp4", folder / "dark.m4a"]
    assert run("ask", *media, "-Q", "What?", "-o", out).code == 0
    ran = run("ask", *media, "-Q", "What?", "-o", out, "--report", pages, "-q")
    assert ran.code == 0
    assert "2 answers of earlier runs are on no page; --overwrite" in " ".join(ran.err.split())
    ran = run("ask", *media, "-Q", "What?", "-Q", "Ho?", "-o", out, "--report", pages, "-q")  # pages hold the other one
    assert "2 answers of earlier runs are on no page; --overwrite" in " ".join(ran.err.split())
    ran = run("ask", media[0], "-Q", "What?", "-Q", "Ho?", "-o", out, "--report", pages, "-q")
    assert "1 answer of earlier runs is on no page; --overwrite" in " ".join(ran.err.split())
    ran = run("ask", *media, "-Q", "What?", "-o", out, "--report", pages, "-q", "--overwrite")
    assert "no page" not in ran.err
    assert "no page" not in run("ask", *media, "-Q", "What?", "-o", out, "--report", pages, "-q").err
    untried = ("ask", folder / "broken.mp4", *media, "-Q", "Who?", "-o", tmp_path / "new.jsonl", "--fail-fast")
    assert "no page" not in run(*untried, "--report", tmp_path / "others", "-q").err


def test_a_page_that_finds_no_room(run, clips: dict[str, Path], tmp_path: Path) -> None:
    """What to do is said; the answer stays in the output, and the next run tells that it is on no page."""
    pages, out = tmp_path / "pages", tmp_path / "answers.jsonl"
    ask = ("ask", clips["both"], "What?", "-o", out, "--report", pages, "-q")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
    try:
        ran = run(*ask)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (ran.code, len(out.read_text().splitlines())) == (1, 1)
    assert "  try: make room there, or name a file on another disk" in ran.err.splitlines()
    ran = run(*ask)
    assert "1 answer of earlier runs is on no page; --overwrite" in " ".join(ran.err.split())


def test_files_of_one_name_are_told_apart_by_their_folders(run, clips: dict[str, Path], tmp_path: Path) -> None:
    pages, media = tmp_path / "pages", [tmp_path / day / "dark.m4a" for day in ("day1", "day2")]
    for file in media:
        file.parent.mkdir()
        file.symlink_to(clips["dark"])
    ask = ("-Q", "What?", "--report", pages, "-q", "-o")
    assert run("ask", media[0], *ask, tmp_path / "1.jsonl").code == 0
    assert "day1" not in check((pages / "index.html").read_text()).text, "one file of that name is told by it"
    assert run("ask", media[1], *ask, tmp_path / "2.jsonl").code == 0
    index = (pages / "index.html").read_text()
    cells = re.findall(r'<tr><td><a href="./([^"]*)">dark.m4a</a> <span class="quiet">([^<]*)</span></td>', index)
    assert cells == [(page_name(str(file)), f"../{file.parent.name}") for file in media]
    for file in media:
        text = (pages / page_name(str(file))).read_text()
        assert f'<h1>dark.m4a <span class="quiet">../{file.parent.name}</span></h1>' in text


def test_pages_that_were_called_by_fewer_digits(run, clips: dict[str, Path], tmp_path: Path) -> None:
    """Of two folders they may be the same, as of these. Such a page stays its own file's, and is no other one's."""
    alike = ("/d/cam17757/clip.mp4", "/d/cam40579/clip.mp4")
    assert len({page_name(media, digits=8) for media in alike}) == 1
    assert len({page_name(media) for media in alike}) == 2
    pages, media = tmp_path / "pages", [tmp_path / day / "dark.m4a" for day in ("day1", "day2")]
    for file in media:
        file.parent.mkdir()
        file.symlink_to(clips["dark"])
    ask = ("--report", pages, "-q", "-Q", "What?", "-o", tmp_path / "o.jsonl")
    assert run("ask", media[0], *ask).code == 0
    earlier, taken = (pages / page_name(str(file), digits=8) for file in media)
    (pages / page_name(str(media[0]))).rename(earlier)
    taken.write_text(earlier.read_text())
    ran = run("ask", *media, *ask, "-Q", "Who?")
    assert ran.code == 0 and "no page" not in ran.err
    new = pages / page_name(str(media[1]))
    assert {page.name for page in pages.iterdir()} == {each.name for each in (earlier, taken, new)} | {"index.html"}
    assert [len(check(page.read_text()).all("section")) for page in (earlier, taken, new)] == [2, 1, 2]


def test_a_page_of_many_long_answers_stays_in_the_index(run, folder: Path, tmp_path: Path) -> None:
    """Whose summary is longer than what is read of a page at first; and no answer of it counts as on no page."""
    pages, out, media = tmp_path / "pages", tmp_path / "o.jsonl", folder / "dark.m4a"
    asked = [Section(key_of(f"What {n}?", None, None, None), f"What {n}?", "a" * 900, "<p></p>") for n in range(1300)]
    pages.mkdir()
    (pages / page_name(str(media))).write_bytes(report_page("dark.m4a", asked, None, ""))
    assert run("ask", media, "-Q", "What 7?", "-o", out, "-q").code == 0
    ran = run("ask", media, "-Q", "What 7?", "-Q", "How?", "-o", out, "--report", pages, "-q")
    assert ran.code == 0 and "no page" not in ran.err
    index = check((pages / "index.html").read_text())
    assert "Answers about 1 file" in index.text and len(index.all("tr")) == 1 + 1301


def test_what_is_called_like_a_page_and_is_none(run, folder: Path, tmp_path: Path) -> None:
    """As browsers leave folders; and a pipe is not waited for."""
    pages = tmp_path / "pages"
    (pages / "saved.html").mkdir(parents=True)
    os.mkfifo(pages / "pipe.html")
    ran = run("ask", folder / "dark.m4a", "-Q", "What?", "-o", tmp_path / "o.jsonl", "--report", pages, "-q")
    assert ran.code == 0
    assert "dark.m4a" in (pages / "index.html").read_text()


def test_a_page_keeps_all_of_what_it_held(run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its player, when the next question is about the sound alone, and questions beyond what is looked at of a file."""
    pages, media = tmp_path / "pages", folder / "a <b>.mp4"
    assert run("ask", media, "-Q", "What?", "-o", tmp_path / "1.jsonl", "--report", pages, "-q").code == 0
    monkeypatch.setattr("echopix_cli.cli.own_files._MOST", 3000)
    options = ("-Q", "Who?", "-o", tmp_path / "2.jsonl", "--report", pages, "--no-video", "-q")
    assert run("ask", media, *options).code == 0
    text = (pages / page_name(str(media))).read_text()
    parsed = check(text)
    assert len(parsed.all("section")) == 2
    assert '<div class="player"><video ' in text


def test_a_page_of_another_version_keeps_its_answers(run, folder: Path, tmp_path: Path) -> None:
    """Its style is another one, so that its pictures and tables go; the page says so, and later runs change nothing."""
    pages, out = tmp_path / "pages", tmp_path / "out.jsonl"
    options = ("-o", out, "--report", pages, "-q")
    assert run("ask", folder / "dark.m4a", "-Q", "What <i>?", *options).code == 0
    page = pages / page_name(str(folder / "dark.m4a"))
    other = re.sub("'sha256-[^']*'", "'sha256-older'", page.read_text())
    page.write_text(other.replace("<section ", "<article ").replace("</section>", "</article>"))
    assert run("ask", folder / "dark.m4a", "-Q", "What <i>?", "-Q", "Who?", *options).code == 0
    parsed, answer = check(page.read_text()), json.loads(out.read_text().splitlines()[0])["answer"]
    assert len(parsed.all("section")) == 2 and not parsed.all("article")
    assert "What <i>?" in parsed.text and "Who?" in parsed.text and " ".join(answer.split()) in parsed.text
    assert parsed.text.count("Another version of echopix made this") == 1
    assert '<div class="player"><audio ' in page.read_text()
    assert run("ask", folder / "dark.m4a", "-Q", "How?", *options).code == 0
    later = check(page.read_text())
    assert len(later.all("section")) == 3 and later.text.count("Another version of echopix made this") == 1


def test_a_run_that_is_killed_leaves_the_page_of_what_it_answered(
    run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = tmp_path / "pages"
    monkeypatch.setattr("echopix_cli.cli.report_folder._PAUSE", 0.0)
    monkeypatch.setattr("echopix_cli.cli.report_folder.ReportFolder.close", lambda self: None)
    asked = [part for number in range(4) for part in ("-Q", f"What {number}?")]
    assert run("ask", folder / "dark.m4a", *asked, "-o", tmp_path / "out.jsonl", "--report", pages, "-q").code == 0
    assert check((pages / page_name(str(folder / "dark.m4a"))).read_text()).all("section")


def test_what_is_on_a_page_is_held_there_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many questions there are about one file; at the end all of them are on it, and the player of any."""

    def held() -> int:
        gc.collect()
        return sum(type(one) in (Answer, Section) for one in gc.get_objects())

    monkeypatch.setattr(report_folder, "_PAUSE", 0.0)
    monkeypatch.setattr(report_folder, "time", SimpleNamespace(monotonic=lambda: 0.0))  # it is always time to write
    media, before = str(tmp_path / "a.mp4"), held()
    folder = ReportFolder(tmp_path / "pages", DecodePlan())
    for number in range(5):
        folder.add(Task(media, f"What {number}?"), an_answer((), question=f"What {number}?", picture=number == 1))
        assert held() == before
    folder.close()
    text = (tmp_path / "pages" / page_name(media)).read_text()
    assert re.findall("<h2>(What .)", text) == [f"What {number}" for number in range(5)]
    assert '<div class="player"><video ' in text


def test_a_long_page_is_held_no_oftener_than_it_has_to_be() -> None:
    """Once in pieces and once whole, beside the sections themselves."""
    sections = [Section(key_of(str(n)), str(n), "yes", f"<p>{n}\N{EN DASH}{'a' * 10**6}</p>") for n in range(9)]
    report_page("a.mp4", sections, None, "")  # what templates need is there
    tracemalloc.start()
    try:
        size = len(report_page("a.mp4", sections, None, ""))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 9 * 10**6
    assert most < 2.5 * size


@pytest.mark.parametrize("place", ["file", "foreign", "nowhere/pages"])
def test_places_that_cannot_be(run, folder: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "index.html").write_text("<!doctype html>mine")
    ran = run("ask", folder, "What?", "--report", tmp_path / place)
    assert (ran.code, ran.out) == (2, "")
    assert (tmp_path / "foreign" / "index.html").read_text() == "<!doctype html>mine"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_page_of_something_else_stays(run, folder: Path, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    mine = pages / page_name(str(folder / "dark.m4a"))
    mine.write_text("mine")
    ran = run("ask", folder / "dark.m4a", "-Q", "What?", "-o", tmp_path / "out.jsonl", "--report", pages)
    assert ran.code == 1
    assert "exists and is no report of echopix" in ran.err
    assert mine.read_text() == "mine"
