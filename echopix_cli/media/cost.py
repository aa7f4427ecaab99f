"""What decoding a file has cost so far, and where it becomes too much."""

from __future__ import annotations

from echopix_cli.errors import MediaError
from echopix_cli.media.plan import Limits
from echopix_cli.media.pulse import beat
from echopix_cli.sizes import exact

_PIXEL_BYTES = 3  # a decoded pixel counts as RGB, whatever its format takes
_SAMPLE_BYTES = 4  # a decoded sample counts as float32


class Meter:
    """Counts the frames and bytes that come out of a file's decoders, picture and sound together.

    A small file can hold hours of black in 16 thousand pixels' width: what is kept of it is small as well,
    but not the work. Without this it would end only when everything was decoded.

    Args:
        name: of the file, as shown.
        limits: where to stop.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self.frames = 0
        self.bytes = 0
        self._name, self._limits = name, limits

    def foresee(self, frames: int, width: int, height: int) -> None:
        """Refuse work that is too much before it begins.

        Args:
            frames: that will have to be decoded.
            width, height: of each, in pixels, according to the header; 0 where it does not tell.

        Raises:
            MediaError: with what was decoded already, it would exceed a limit.
        """
        self._check(self.frames + frames, self.bytes + frames * width * height * _PIXEL_BYTES)

    def picture(self, width: int, height: int) -> None:
        """Count one decoded frame of so many pixels.

        Raises:
            MediaError: it was one too many.
        """
        beat()
        self.frames += 1
        self.bytes += width * height * _PIXEL_BYTES
        self._check(self.frames, self.bytes)

    def sound(self, samples: int, channels: int) -> None:
        """Count a decoded block of sound, ``samples`` in each channel.

        Raises:
            MediaError: it was too much.
        """
        beat()
        self.bytes += samples * channels * _SAMPLE_BYTES
        self._check(self.frames, self.bytes)

    def _check(self, frames: int, size: int) -> None:
        limits = self._limits
        if frames > limits.max_decoded_frames:
            raise MediaError(
                f"{self._name}: more than {limits.max_decoded_frames} frames would have to be decoded",
                "choose a shorter span, or raise the setting limit_decoded_frames",
            )
        if size > limits.max_decoded_bytes:
            raise MediaError(
                f"{self._name} expands to more than {exact(limits.max_decoded_bytes)} of decoded picture and sound",
                "choose a shorter span, or raise the setting limit_decoded_bytes",
            )
