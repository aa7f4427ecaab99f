"""The sound: right place, right level, right length, and a status that tells what became of it."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from makers import (
    flac_with_cover,
    greys,
    tone,
    write_clip,
    write_picture,
    write_stretches,
    write_two_tracks,
)

from echopix_cli.errors import MediaError
from echopix_cli.media import Clip, DecodePlan, Limits, load_clip, probe
from echopix_cli.media import audio as audio_room
from echopix_cli.media.clock import Clock
from echopix_cli.media.cost import Meter
from echopix_cli.media.downmix import Downmix
from echopix_cli.media.hearing import planes, speakers
from echopix_cli.results import AudioStatus

RATE = 16_000


def heard(clip: Clip) -> Any:
    assert clip.waveform is not None and clip.waveform.dtype == np.float32 and clip.waveform.ndim == 1
    return clip.waveform


def onset(waveform: Any) -> float:
    """When the sound begins, in seconds."""
    return float(np.argmax(np.abs(waveform) > 0.05)) / RATE


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "FLOAT"])
def test_plain_audio_is_resampled_in_place(tmp_path: Path, rate: int, subtype: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(2, rate)[0], rate, subtype=subtype)
    clip = load_clip(path)
    assert (clip.frames, clip.frame_times, clip.second_per_grid) == (None, None, None)
    assert clip.audio_status is AudioStatus.USED and clip.end == pytest.approx(2.0)
    assert abs(heard(clip).size - 2 * RATE) <= 1
    inner = slice(200, 2 * RATE - 200)  # a resampler rings at the edges
    np.testing.assert_allclose(heard(clip)[inner], tone(2)[0][inner], atol=0.02 if subtype == "PCM_U8" else 0.002)


def test_both_readers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stereo = np.concatenate([tone(3, 44_100, 440), tone(3, 44_100, 1000)])
    soundfile.write(tmp_path / "a.flac", stereo.T, 44_100)
    for plan in (DecodePlan(), DecodePlan(start=0.5, end=2.25)):
        plain = heard(load_clip(tmp_path / "a.flac", plan))
        with monkeypatch.context() as patch:
            patch.setattr("echopix_cli.media.load.is_plain", lambda name: False)
            through_ffmpeg = heard(load_clip(tmp_path / "a.flac", plan))
        assert plain.size == through_ffmpeg.size
        np.testing.assert_allclose(plain[200:-200], through_ffmpeg[200:-200], atol=1e-3)


def test_channels_are_averaged_not_summed(tmp_path: Path) -> None:
    same = np.concatenate([tone(1), tone(1)])
    mixed = heard(load_clip(write_clip(tmp_path / "s.mkv", sound=same)))
    np.testing.assert_allclose(mixed, tone(1)[0], atol=1e-3)


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "flac", "wav", "aiff"])
def test_plain_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(4, 44_100)[0], 44_100)
    levels = [float(np.sqrt(np.mean(np.square(part)))) for part in np.split(heard(load_clip(path)), 40)]
    assert levels == pytest.approx([0.5 / 2**0.5] * 40, rel=0.02)  # no seam between the blocks
    clip = load_clip(path, DecodePlan(start=0.5, end=1.5))
    assert heard(clip).size == RATE and clip.start == 0.5 and clip.end == 1.5
    # An MP3 decoder needs a run-in before the span, or its first 50 ms are silent.
    np.testing.assert_array_equal(heard(clip)[200:-200], heard(load_clip(path))[RATE // 2 :][200 : RATE - 200])
    assert float(np.sqrt(np.mean(np.square(heard(clip)[:800])))) == pytest.approx(0.5 / 2**0.5, rel=0.02)


@pytest.mark.parametrize(("suffix", "codec", "rate"), [("m4a", "aac", 44_100), ("mka", "libopus", 48_000)])
def test_audio_only_containers(tmp_path: Path, suffix: str, codec: str, rate: int) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", sound=tone(2, rate), sound_rate=rate, audio_codec=codec)
    clip = load_clip(path)
    assert clip.frames is None and clip.audio_status is AudioStatus.USED and clip.notices == ()
    assert heard(clip).size == pytest.approx(2 * RATE, abs=0.05 * RATE)


def test_cover_art_is_not_a_video_track(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "plain.flac", tone(1)[0], RATE)
    cover = write_picture(tmp_path / "cover.png", greys(1)[0]).read_bytes()
    path = flac_with_cover(tmp_path / "plain.flac", tmp_path / "cover.flac", cover)
    clip = load_clip(path)
    assert clip.frames is None and heard(clip).size == RATE
    assert [track.kind for track in clip.info.tracks] == ["audio"]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_late_sound_begins_with_silence(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", greys(30), sound=tone(2), sound_start=1.0,
                      codec="libx264", pix_fmt="yuv420p", audio_codec="aac")  # fmt: skip
    clip = load_clip(path)
    assert onset(heard(clip)) == pytest.approx(1.0, abs=0.07)  # an AAC frame lasts 64 ms at 16 kHz
    assert float(np.abs(heard(clip)[: int(0.9 * RATE)]).max()) < 1e-3
    later = load_clip(path, DecodePlan(start=0.75))
    assert onset(heard(later)) == pytest.approx(0.25, abs=0.07)


def test_a_hole_in_the_sound_is_silence(tmp_path: Path) -> None:
    path = tmp_path / "hole.mkv"
    write_stretches(path, [(0.0, tone(1)), (3.0, tone(1))])
    waveform = heard(load_clip(path))
    assert waveform.size == pytest.approx(4 * RATE, abs=20)
    assert float(np.abs(waveform[RATE + 50 : 3 * RATE - 50]).max()) == 0.0
    assert float(np.abs(waveform[3 * RATE :]).max()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("seconds", "frames"), [(1.0, 30), (5.0, 30)])
def test_sound_may_be_shorter_or_longer_than_the_picture(tmp_path: Path, seconds: float, frames: int) -> None:
    clip = load_clip(write_clip(tmp_path / "a.mkv", greys(frames), sound=tone(seconds)))
    assert clip.frames is not None
    assert heard(clip).size == pytest.approx(seconds * RATE, abs=20)
    assert clip.end == pytest.approx(max(seconds, frames / 10)) and clip.notices == ()


def test_a_span_after_the_picture_ends_has_sound_only_and_says_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", greys(10), sound=tone(4))
    clip = load_clip(path, DecodePlan(start=2, end=3))
    assert clip.frames is None and heard(clip).size == RATE
    assert clip.notices == ("the picture ends at 0:01, before the span; only sound was used",)


def test_a_span_after_the_sound_ends_has_the_picture_only(tmp_path: Path) -> None:
    clip = load_clip(write_clip(tmp_path / "a.mkv", greys(40), sound=tone(1)), DecodePlan(start=2, end=3))
    assert clip.frames is not None and clip.waveform is None
    assert clip.audio_status is AudioStatus.ABSENT
    assert clip.notices == ("the sound ends at 0:01, before the span; only the picture was used",)


@pytest.mark.parametrize("plain", [True, False])
def test_too_much_sound_is_cut_and_counted(tmp_path: Path, plain: bool) -> None:
    if plain:
        path = tmp_path / "a.wav"
        soundfile.write(path, tone(5)[0], RATE)
    else:
        path = write_clip(tmp_path / "a.mkv", greys(50), sound=tone(5))
    clip = load_clip(path, DecodePlan(max_audio_seconds=2.0))
    assert heard(clip).size == 2 * RATE and clip.audio_status is AudioStatus.TRUNCATED
    assert clip.notices == ("only the first 0:02 of sound were used; 0:03 were left out",)
    exact = load_clip(path, DecodePlan(max_audio_seconds=5.0))
    assert exact.audio_status is AudioStatus.USED and exact.notices == ()
    within = load_clip(path, DecodePlan(start=1, end=2, max_audio_seconds=2.0))
    assert within.audio_status is AudioStatus.USED and heard(within).size == RATE


def test_switching_a_modality_off(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", greys(10), sound=tone(1))
    silent = load_clip(path, DecodePlan(audio=False))
    assert silent.waveform is None and silent.audio_status is AudioStatus.DISABLED
    blind = load_clip(path, DecodePlan(video=False))
    assert blind.frames is None and blind.audio_status is AudioStatus.USED
    mute = write_clip(tmp_path / "m.mkv", greys(10))
    assert load_clip(mute, DecodePlan(audio=False)).audio_status is AudioStatus.ABSENT
    with pytest.raises(MediaError, match="nothing is left to use"):
        load_clip(mute, DecodePlan(video=False))
    with pytest.raises(MediaError, match="nothing is left to use"):
        load_clip(path, DecodePlan(video=False, audio=False))


def test_several_audio_tracks(tmp_path: Path) -> None:
    path = write_two_tracks(tmp_path / "two.mkv", tone(1, level=0.1), tone(1, level=0.7))
    levels = [float(np.abs(heard(load_clip(path, DecodePlan(audio_track=n)))).max()) for n in (0, 1)]
    assert levels == pytest.approx([0.1, 0.7], abs=0.01)
    assert load_clip(path).notices == ("the file has 2 audio tracks; track 0 was used",)
    with pytest.raises(MediaError, match="no audio track 7; it has: 0, 1"):
        load_clip(path, DecodePlan(audio_track=7))


def test_plain_audio_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(RATE * 20, np.float32), RATE)
    asked = []
    real = soundfile.SoundFile.read

    def read(self: Any, frames: int = -1, **options: Any) -> Any:
        asked.append(frames)
        return real(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    load_clip(path)
    assert len(asked) >= 4 and 0 < max(asked) <= 100_000


def test_what_libsndfile_cannot_read_goes_through_ffmpeg(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", sound=tone(1), audio_codec="adpcm_yamaha")
    assert audio_room.read_plain(path, DecodePlan(), probe(path), Meter("a", Limits())) is None
    assert heard(load_clip(path)).size == pytest.approx(RATE, abs=2048)


def test_a_damaged_timestamp_is_not_hours_of_silence(tmp_path: Path) -> None:
    path = write_stretches(tmp_path / "a.mkv", [(0.0, tone(1)), (2_000.0, tone(1))])
    whole = heard(load_clip(path))
    assert whole.size == pytest.approx(2_001 * RATE, abs=20), "an honest header is believed"
    found = audio_room.read_track(path, 0, DecodePlan(), Clock(), None, Meter("a", Limits()))
    assert found.waveform is not None and found.waveform.size == pytest.approx(2 * RATE, abs=20)


def test_sound_that_is_no_number_is_silence(tmp_path: Path) -> None:
    sound = tone(1)[0]
    sound[500:600] = np.nan
    sound[700] = np.inf
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    waveform = heard(load_clip(tmp_path / "a.wav"))
    assert np.isfinite(waveform).all() and float(np.abs(waveform[500:600]).max()) == 0.0
    np.testing.assert_allclose(waveform[:500], sound[:500], atol=1e-6)


@pytest.mark.parametrize("channels", ["7.1", "hexadecagonal"])
def test_many_planes_do_not_crash(channels: str) -> None:
    count = {"7.1": 8, "hexadecagonal": 16}[channels]
    packed = np.repeat(tone(0.1), count, axis=0).T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), format="flt", layout=channels)
    frame.sample_rate = RATE
    planar = av.AudioResampler(format="fltp", layout=channels, rate=RATE).resample(frame)[0]
    assert planar.format.is_planar
    np.testing.assert_allclose(Downmix().mix(planes(planar), RATE, speakers(planar)), tone(0.1)[0], atol=1e-6)


@pytest.mark.parametrize("suffix", ["mkv", "mka"])
def test_sound_beyond_a_gap_is_cut_by_where_it_lies_and_said(tmp_path: Path, suffix: str) -> None:
    path = write_stretches(tmp_path / f"a.{suffix}", [(0.0, tone(2)), (50.0, tone(2))])
    short = load_clip(path, DecodePlan(max_audio_seconds=10.0))
    assert heard(short).size == 2 * RATE and short.audio_status is AudioStatus.TRUNCATED
    assert short.notices == ("only the first 0:10 of sound were used; 0:42 were left out",)
    whole = load_clip(path, DecodePlan(max_audio_seconds=60.0))
    assert heard(whole).size == pytest.approx(52 * RATE, abs=20) and whole.notices == ()
    with pytest.raises(MediaError, match="the sound begins at 0:50, after the 0:10 used of it"):
        load_clip(path, DecodePlan(start=20, max_audio_seconds=10.0))
    silent = write_clip(tmp_path / "v.mkv", greys(100), fps=2, sound=tone(2), sound_start=40.0)
    late = load_clip(silent, DecodePlan(max_audio_seconds=10.0))
    assert late.waveform is None and late.audio_status is AudioStatus.TRUNCATED
    assert late.notices == ("the sound begins at 0:40, after the 0:10 used of it; it was left out",)
    before = load_clip(silent, DecodePlan(end=10.0, max_audio_seconds=10.0))
    assert before.waveform is None and before.audio_status is AudioStatus.ABSENT
    assert before.notices == ("there is no sound between 0:00 and 0:10; only the picture was used",)


def test_too_long_a_sound_is_not_an_error_where_less_of_it_was_asked_for(tmp_path: Path) -> None:
    path = write_stretches(tmp_path / "a.mkv", [(0.0, tone(1)), (30.0, tone(1))])
    limits = Limits(max_sound_seconds=20.0)
    assert load_clip(path, DecodePlan(max_audio_seconds=5.0, limits=limits)).audio_status is AudioStatus.TRUNCATED
    with pytest.raises(MediaError, match="the sound is longer than"):
        load_clip(path, DecodePlan(limits=limits))


@pytest.mark.parametrize("suffix", ["wav", "mkv", "mp4"])
@pytest.mark.parametrize("louder", [1.0, 0.95])
def test_channels_in_opposite_phase_are_heard_and_it_is_said(tmp_path: Path, suffix: str, louder: float) -> None:
    sound = tone(3)
    both = np.concatenate((louder * sound, -sound))
    codec = {"mp4": "aac"}.get(suffix, "pcm_s16le")
    clip = load_clip(write_clip(tmp_path / f"a.{suffix}", sound=both, audio_codec=codec))
    assert float(np.abs(heard(clip)[RATE : 2 * RATE]).max()) == pytest.approx(0.5, abs=0.02)
    assert clip.notices == ("the sound's channels cancel each other out; where they do, only the louder one was used",)
    steps = np.abs(np.diff(heard(clip)[RATE // 2 : -RATE // 2]))
    assert steps.max() < 0.1, "it does not change from one channel to the other"


@pytest.mark.parametrize("suffix", ["wav", "mkv", "mp4"])
def test_tones_a_hertz_apart_are_averaged_also_in_a_span(tmp_path: Path, suffix: str) -> None:
    """They cancel each other for moments only: at 0.5 s, 1.5 s and so on."""
    left, right = tone(8, pitch=220.0, level=0.3), tone(8, pitch=221.0, level=0.3)
    path = write_clip(tmp_path / f"a.{suffix}", sound=np.concatenate((left, right)),
                      audio_codec={"mp4": "aac"}.get(suffix, "pcm_s16le"))  # fmt: skip
    expected = (left[0] + right[0]) / 2
    for start, end in ((0.0, 8.0), (0.0, 5.8), (0.0, 5.5), (1.5, 4.5), (2.5, 2.6), (3.75, 7.51)):
        clip = load_clip(path, DecodePlan(start=start, end=end))
        part = expected[round(start * RATE) : round(end * RATE)]
        assert clip.notices == ()
        np.testing.assert_allclose(heard(clip)[: part.size], part[: heard(clip).size], atol=0.02)


@pytest.mark.parametrize("suffix", ["wav", "mkv", "mp4"])
def test_a_span_of_channels_in_opposite_phase_is_that_of_the_whole(tmp_path: Path, suffix: str) -> None:
    sound = np.concatenate((tone(3), tone(4, pitch=550.0)), axis=1)
    second = np.concatenate((sound[:, : 3 * RATE], -sound[:, 3 * RATE :]), axis=1)
    path = write_clip(tmp_path / f"a.{suffix}", sound=np.concatenate((sound, second)),
                      audio_codec={"mp4": "aac"}.get(suffix, "pcm_s16le"))  # fmt: skip
    whole = load_clip(path)
    loud = np.abs(heard(whole)[: 7 * RATE]).reshape(-1, RATE // 20).max(axis=1)  # in each twentieth of a second
    assert (loud < 0.45).sum() <= 6, "where the phase turns, no more is lost than tells it from a beat of two tones"
    assert loud[4 * 20 :] == pytest.approx(0.5, abs=0.02)
    for start, end in ((4.5, 6.0), (5.0, 5.1), (0.0, 6.8), (0.5, 2.5)):
        span = load_clip(path, DecodePlan(start=start, end=end))
        assert span.notices == (whole.notices if end > 4 else ())
        part = heard(whole)[round(start * RATE) :][: heard(span).size]
        np.testing.assert_allclose(heard(span), part, atol=0.02)


def test_a_picture_after_the_span_does_not_end_before_it(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", greys(20), video_start=3.0, sound=tone(5), codec="libx264",
                      pix_fmt="yuv420p", audio_codec="aac")  # fmt: skip
    clip = load_clip(path, DecodePlan(start=1, end=2.5))
    assert clip.frames is None
    assert clip.notices == ("there is no picture between 0:01 and 0:02.50; only sound was used",)


def test_blocks_of_any_size_are_mixed_alike() -> None:
    rng = np.random.default_rng(0)
    stereo = np.concatenate((tone(4), -tone(4)))
    for size in (160, 1024, 16_000, 40_001):
        downmix = Downmix()
        mixed = [downmix.mix(stereo[:, at : at + size], RATE) for at in range(0, stereo.shape[1], size)]
        np.testing.assert_array_equal(np.concatenate(mixed), stereo[0])
        assert downmix.cancelled
    noise = rng.normal(0, 0.1, (2, 3 * RATE)).astype(np.float32)
    noise[:, 100] = np.nan, np.inf
    downmix = Downmix()
    assert downmix.mix(noise, RATE).shape == (3 * RATE,) and not downmix.cancelled
    downmix.mix(stereo, RATE)
    assert downmix.cancelled, "what is no number is forgotten"


def test_stereo_that_differs_is_averaged_as_before(tmp_path: Path) -> None:
    left, right = tone(1), tone(1, pitch=550.0)
    clip = load_clip(write_clip(tmp_path / "a.mkv", sound=np.concatenate((left, right))))
    np.testing.assert_allclose(heard(clip), (left[0] + right[0]) / 2, atol=1e-4)
    one = load_clip(write_clip(tmp_path / "b.mkv", sound=np.concatenate((left, 0 * left))))
    np.testing.assert_allclose(heard(one), left[0] / 2, atol=1e-4)
    assert clip.notices == one.notices == ()


@pytest.mark.parametrize(("suffix", "codec"), [("wav", "pcm_s16le"), ("flac", "flac")])
def test_surround_sound_has_the_weights_of_ffmpegs_downmix(tmp_path: Path, suffix: str, codec: str) -> None:
    layout = "5.1"  # FL, FR, FC, LFE, BL, BR
    for channel, weight in enumerate((0.5**0.5, 0.5**0.5, 1.0, 0.0, 0.5, 0.5)):
        path = tmp_path / f"{channel}.{suffix}"
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=RATE, layout=layout)
            block = np.zeros((6, RATE), np.int16)
            block[channel] = np.round(tone(1)[0] * 32767)
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block.T.reshape(1, -1)), format="s16", layout=layout
            )
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        expected = weight / (2 * 0.5**0.5 + 1 + 2 * 0.5)
        waveform = load_clip(path).waveform
        assert waveform is not None
        assert float(np.abs(waveform).max()) == pytest.approx(0.5 * expected, abs=1e-3)


@pytest.mark.parametrize("count", range(3, 9))
def test_channels_without_places_are_averaged(tmp_path: Path, count: int) -> None:
    for channel in range(count):
        path = tmp_path / f"{channel}.wav"
        block = np.zeros((RATE, count), np.int16)
        block[:, channel] = np.round(tone(1)[0] * 32767)
        with wave.open(str(path), "wb") as out:  # which tells no places
            out.setparams((count, 2, RATE, RATE, "NONE", ""))
            out.writeframes(block.tobytes())
        clip = load_clip(path)
        assert clip.waveform is not None and clip.notices == ()
        assert float(np.abs(clip.waveform).max()) == pytest.approx(0.5 / count, abs=1e-3)


def test_coded_sound_in_a_wav_is_no_noise(tmp_path: Path) -> None:
    """As receivers and disc players put out AC-3, and as it is then recorded."""
    stereo = np.repeat(tone(3, 48_000), 2, axis=0)
    coded = write_clip(tmp_path / "a.ac3", sound=stereo, sound_rate=48_000, audio_codec="ac3")
    with av.open(str(coded)) as source, av.open(str(tmp_path / "a.spdif"), "w", format="spdif") as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    with wave.open(str(tmp_path / "a.wav"), "wb") as recorded:
        recorded.setparams((2, 2, 48_000, 0, "NONE", ""))
        recorded.writeframes((tmp_path / "a.spdif").read_bytes())
    clip = load_clip(tmp_path / "a.wav")
    assert clip.waveform is not None and clip.notices == ()
    second = clip.waveform[RATE : 2 * RATE]
    spectrum = np.abs(np.fft.rfft(second))
    assert spectrum.argmax() == 440 and spectrum[440] > 0.99 * spectrum.sum()
    assert float(np.abs(second).max()) == pytest.approx(0.5, abs=1e-3)
