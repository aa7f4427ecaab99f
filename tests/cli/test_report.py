"""Pages about answers: what they say, what they load, and that names and answers are harmless in them."""

from __future__ import annotations

import base64
import io
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import av
import numpy as np
import pytest
from answers import an_answer
from clips import write_clip
from pages import check

from echopix_cli.cli.report import page, url_of
from echopix_cli.cli.report_exhibits import Exhibit, Exhibitor, Still, Wave
from echopix_cli.cli.report_sections import section_of
from echopix_cli.media import DecodePlan
from echopix_cli.results import Answer, Choice, KeptToken, Moment

HOSTILE = "<script>alert(1)</script>\"'&<!-- end -->\x1b[2J\u202e]]></style>"
SEEN = Moment(1.0, 2.0, "video", 0.7)
HEARD = Moment(0.2, 0.6, "audio", 0.3)
TOKENS = (
    KeptToken(1.0, 1.5, "video", 0.2, (0.0, 0.0, 0.25, 0.5)),
    KeptToken(1.5, 2.0, "video", 0.3, (0.25, 0.5, 0.5, 1.0)),
    KeptToken(1.5, 2.0, "video", 0.2, (0.5, 0.5, 0.75, 1.0)),
    KeptToken(0.2, 0.24, "audio", 0.1),
    KeptToken(0.24, 0.28, "audio", 0.1),
    KeptToken(0.56, 0.6, "audio", 0.1),
)


def of_clip(path: Path, moments: tuple[Moment, ...] = (SEEN, HEARD)) -> list[Exhibit]:
    return Exhibitor(path, DecodePlan()).exhibits(an_answer(moments, end=3.0, kept_tokens=TOKENS))


def test_the_frame_and_the_sound_of_a_moment(clips: dict[str, Path]) -> None:
    seen, heard = of_clip(clips["both"])
    assert seen.still is not None and seen.wave is not None and heard.wave is not None
    assert seen.still.time == pytest.approx(1.5)
    assert seen.still.kept == ((0.25, 0.5, 0.5, 1.0), (0.5, 0.5, 0.75, 1.0))  # those of the heaviest step
    (shown,) = av.open(io.BytesIO(seen.still.jpeg)).decode(video=0)
    image = shown.to_ndarray(format="rgb24").astype(int)
    assert image.shape == (seen.still.height, seen.still.width, 3) == (120, 160, 3)
    bright = np.flatnonzero(image[40, :, 0] > 140)  # the square of the 16th frame
    assert abs(bright[0] - 15) <= 2 and abs(bright[-1] - 54) <= 2
    assert heard.still is not None and heard.still.kept == ()
    assert (heard.wave.start, heard.wave.end) == (0.0, pytest.approx(1.6))
    assert [(round(first, 2), round(last, 2)) for first, last in heard.wave.kept] == [(0.2, 0.28), (0.56, 0.6)]
    assert max(high for _, high in heard.wave.envelope) == pytest.approx(1.0, abs=0.1)
    assert all(-1.0 <= low <= high <= 1.0 for low, high in heard.wave.envelope)


def test_each_answer_s_frame_is_one_of_its_own_span(clips: dict[str, Path]) -> None:
    """Of one frame, the span that was asked about; and what an answer about another span saw at the time is not it."""

    def about(start: float, end: float, frames: int) -> Answer:
        answer = an_answer((Moment(1.05, 1.15, "audio", 1.0),), start=start, end=end,
                           kept_tokens=(KeptToken(1.05, 1.15, "audio", 1.0),))  # fmt: skip
        return replace(answer, sampling=replace(answer.sampling, frames=frames))

    exhibitor = Exhibitor(clips["both"], DecodePlan())  # 30 frames in three seconds
    seen = []
    for span in ((0.0, 0.05, 1), (1.1, 1.15, 1), (0.0, 3.0, 6), (1.1, None, 1)):
        (exhibit,) = exhibitor.exhibits(about(*span))  # type: ignore[arg-type]
        assert exhibit.still is not None
        seen.append(round(exhibit.still.time, 2))
    assert seen == [0.0, 1.1, 1.1, 1.1]


def test_sound_is_drawn_where_it_sounds(tmp_path: Path) -> None:
    """A second of silence, one of a tone, and none in the four that are left of the picture."""
    path = write_clip(tmp_path / "a.mp4", seconds=6.0, heard=(1.0, 2.0))
    token = KeptToken(0.0, 6.0, "video", 1.0, (0.0, 0.0, 1.0, 1.0))
    (exhibit,) = Exhibitor(path, DecodePlan()).exhibits(
        an_answer((Moment(0.0, 6.0, "video", 1.0),), end=6.0, kept_tokens=(token,))
    )
    assert exhibit.wave is not None and (exhibit.wave.start, exhibit.wave.end) == (0.0, 6.0)
    loud = [6.0 * place / len(exhibit.wave.envelope) for place, (_, high) in enumerate(exhibit.wave.envelope)
            if high > 0.5]  # fmt: skip
    assert (min(loud), max(loud)) == (pytest.approx(1.0, abs=0.06), pytest.approx(2.0, abs=0.1))


def test_what_cannot_be_read_again_is_said(clips: dict[str, Path], tmp_path: Path) -> None:
    assert of_clip(tmp_path / "gone.mp4") == [Exhibit(SEEN, None, None), Exhibit(HEARD, None, None)]
    answer = an_answer((SEEN,), kept_tokens=TOKENS)
    html = section_of(answer, of_clip(tmp_path / "gone.mp4")[:1]).html
    assert "No picture and no sound could be read here." in html
    (silent,) = of_clip(clips["silent"], (SEEN,))
    assert silent.still is not None and silent.wave is None


def test_long_sounds_are_drawn_in_part() -> None:
    class Deaf(Exhibitor):
        def _envelope(self, start: float, end: float) -> tuple[tuple[float, float], ...]:
            return ((0.0, 0.0),)

        def _still(self, answer: object, moment: object) -> None:
            return None

    tokens = tuple(KeptToken(second, second + 1.0, "audio", 1e-3 * second) for second in range(900))
    answer = an_answer((Moment(0.0, 900.0, "audio", 1.0),), end=900.0, kept_tokens=tokens)
    (exhibit,) = Deaf("x", DecodePlan()).exhibits(answer)
    assert exhibit.wave is not None
    assert (exhibit.wave.start, exhibit.wave.end) == (840.0, 900.0)
    assert exhibit.wave.kept == ((840.0, 900.0),)


def test_texts_of_any_origin_are_harmless() -> None:
    answer = replace(
        an_answer((SEEN,), question=HOSTILE, answer=HOSTILE, notices=(HOSTILE,), media=f"/x/{HOSTILE}.mp4"),
        choices=(Choice("A", HOSTILE, 0.75), Choice("B", "no", 0.25)),
        model=replace(an_answer(()).model, name=HOSTILE),
    )
    still = Still(b"\xff\xd8", 640, 360, 1.5, ((0.0, 0.0, 0.5, 1.0),))
    exhibit = Exhibit(SEEN, still, Wave(0.0, 3.0, ((-0.5, 1.0), (0.0, 0.0)), ((0.0, 1.5),)))
    parsed = check(
        page(f"{HOSTILE}\udcff.mp4", [section_of(answer, [exhibit])], "video", url_of("/x/y", Path("/x"))).decode()
    )
    assert len(parsed.all("script")) == len(parsed.all("style")) == len(parsed.all("section")) == 1
    assert parsed.text.count("<script>alert(1)</script>") >= 5
    assert "\x1b" not in parsed.text and "\u202e" not in parsed.text
    paths = [each["d"] for each in parsed.all("path")]
    assert "M0 0H0.5V1H0Z" in paths and "M0.0 0H500.0V100H0.0Z" in paths
    assert parsed.all("img")[0]["alt"] == "frame at 0:01.50; 1 patch of it kept, mostly at the left"
    assert (parsed.all("button")[0]["data-start"], parsed.all("button")[0]["data-end"]) == ("1.000", "2.000")


@pytest.mark.parametrize("name", ["http:x.mp4", "a b#c?d%e.mp4", '\udcff".mp4', "javascript:alert(1)"])
def test_urls_of_media_are_files_beside_the_page(tmp_path: Path, name: str) -> None:
    for media, folder in ((tmp_path / name, tmp_path), (tmp_path / "a" / name, tmp_path / "b" / "c")):
        url = url_of(media, folder)
        assert url.startswith("./") and url.isascii() and not set(url) & set(' #?"<>&')
        assert os.path.normpath(os.path.join(os.fsencode(folder), unquote_to_bytes(url))) == os.fsencode(media)


def test_a_page_of_one_file(run, clips: dict[str, Path], tmp_path: Path) -> None:
    media = tmp_path / os.fsdecode(b'a"b<c>&\xff.mp4')
    media.symlink_to(clips["both"])
    out = tmp_path / "page.html"
    ran = run("ask", media, "-Q", "What?", "-Q", "<b>Who</b>?", "--json", "--report", out)
    assert (ran.code, len(ran.records)) == (0, 2)
    assert not any("kept_tokens" in record for record in ran.records)
    parsed = check(out.read_text())
    assert len(parsed.all("section")) == 2
    assert "<b>Who</b>?" in parsed.text and 'a"b<c>&\\udcff.mp4' in parsed.text
    (player,) = parsed.all("video")
    assert unquote_to_bytes(player["src"] or "") == b"./" + os.fsencode(media.name)
    for image in parsed.all("img"):
        assert base64.b64decode((image["src"] or "").partition(",")[2]).startswith(b"\xff\xd8")
    shown = sum(min(len(record["moments"]), 5) for record in ran.records)
    assert len(parsed.all("button")) == len(parsed.all("img")) == shown > 0
    assert run("ask", media, "What?", "-q", "--report", out, "--budget", "1").code == 0  # over its own
    assert len(check(out.read_text()).all("section")) == 1


def test_a_page_of_a_still_picture_and_of_sound_alone(run, clips: dict[str, Path], tmp_path: Path) -> None:
    picture = tmp_path / "still.png"
    frame = av.VideoFrame.from_ndarray(np.full((90, 160, 3), 200, np.uint8), format="rgb24")
    with av.open(str(picture), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 160, 90, "rgb24"
        container.mux([*stream.encode(frame), *stream.encode(None)])
    for media, players, frames in ((picture, (0, 0), 1), (clips["dark"], (0, 1), 0)):
        out = tmp_path / f"{media.name}.html"
        ran = run("ask", media, "What?", "--report", out)
        assert ran.code == 0
        assert ("moments" in ran.err) == (frames == 0)
        parsed = check(out.read_text())
        assert (len(parsed.all("video")), len(parsed.all("audio"))) == players
        assert bool(parsed.all("img")) == bool(frames)
        assert bool(parsed.all("button")) == (frames == 0)


def test_without_moments_the_page_still_answers() -> None:
    parsed = check(page("x", [section_of(an_answer((), sound=False), [])], None, "").decode())
    assert "a piano" in parsed.text
    assert "no sound in the file, or in the part asked about" in parsed.text
    assert "weighed by how much attention they get from the row that the answer is read from" in parsed.text
    assert not parsed.all("svg") and not parsed.all("img") and not parsed.all("script")
