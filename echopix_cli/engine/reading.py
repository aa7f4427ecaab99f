"""From a decoded clip, or from features kept earlier, to features on the device that questions can be put to."""

from __future__ import annotations

from dataclasses import replace

import torch

from echopix_cli.engine.encoded import Encoded, sampling_of
from echopix_cli.engine.encoding import ClipEncoder
from echopix_cli.engine.features import Entry
from echopix_cli.engine.meters import Clock, read_peaks
from echopix_cli.errors import Nothing
from echopix_cli.media import Clip
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.results import AudioStatus
from echopix_cli.times import clock as clock_words

TOO_SHORT = "the sound is shorter than one token (about 30 ms) and was not used"


@torch.inference_mode()
def finished(encoder: ClipEncoder, clip: Clip, clock: Clock, entry: Entry | None) -> Encoded:
    """A clip after the towers, its features kept where there is an entry for them.

    Args:
        encoder: which may have taken parts of the clip already.
        clip: from the media room.
        clock: that the encoder runs on, with the seconds of ``decode``.
        entry: of the cache; what the disk did not give may be there another time, and is not kept as missing.

    Raises:
        Nothing: it holds neither a picture nor a sound long enough for one token.
    """
    inputs, video, audio = encoder.finish(clip)
    clock.seconds = {"vision": 0.0, "audio": 0.0, **clock.seconds}
    status, notices = clip.audio_status, clip.notices
    if clip.waveform is not None and not inputs.audio_rows:
        if video is None:
            raise Nothing(f"{clip.path} holds no picture, and {TOO_SHORT}", "give a longer clip or span")
        status, notices = AudioStatus.UNDECODABLE, (*notices, TOO_SHORT)
    peaks = read_peaks(clock.device)
    encoded = Encoded(
        clip.path, clip.info, status, sampling_of(clip), notices, inputs, video, audio, clock.seconds, peaks
    )
    if entry and not clip.refused:
        with clock.stage("decode"):
            entry.keep(encoded)
    return _told(encoder.thinker, encoded)


def on_device(thinker: EchoingPixelsThinker, kept: Encoded, clock: Clock) -> Encoded:
    """Features that were kept earlier, on the clock's device."""
    with clock.stage("decode"):
        video, audio = (None if part is None else part.to(clock.device) for part in (kept.video, kept.audio))
    seconds = {**clock.seconds, "vision": 0.0, "audio": 0.0}
    peaks = read_peaks(clock.device)
    return _told(thinker, replace(kept, video=video, audio=audio, seconds=seconds, peaks=peaks))


def _told(thinker: EchoingPixelsThinker, encoded: Encoded) -> Encoded:
    """With a notice when the picture spans more time than this model's positions reach."""
    times = encoded.inputs.grid_times
    context = thinker.config.text_config.max_position_embeddings / thinker.timeline.per_second
    if not len(times) or times[-1] <= context:
        return encoded
    notice = (
        f"the picture spans {clock_words(round(float(times[-1])))}, but this model can tell times apart up to "
        f"{clock_words(round(context))} only; ask about a part with --start and --end"
    )
    return replace(encoded, notices=(*encoded.notices, notice))
