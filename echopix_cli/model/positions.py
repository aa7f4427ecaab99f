"""Position ids and rotary angles: the family's three M-RoPE axes, and the fourth that Sync-RoPE adds.

Pure functions. Positions are computed on the CPU in whole blocks, angles on whatever device the ids are on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int64]
WINDOW_GAP = 1.0  # seconds between rows of two windows of a film
_ROUNDING = 1e-6  # so that a share that was computed in floating point is not rounded to the position before its own
Rotary = tuple[Tensor, Tensor]  # cosine and sine (…, head_dim) of the angles of each row


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the placeholder and border tokens; every checkpoint states its own.

    ``ends`` are those that close a block of media.
    """

    audio: int
    image: int
    video: int
    vision_start: int
    audio_start: int
    ends: tuple[int, ...] = ()

    @classmethod
    def of(cls, thinker: Any) -> SpecialTokens:
        """Those of a thinker's configuration."""
        return cls(
            audio=thinker.audio_token_id,
            image=thinker.image_token_id,
            video=thinker.video_token_id,
            vision_start=thinker.vision_start_token_id,
            audio_start=thinker.audio_start_token_id,
            ends=(thinker.vision_end_token_id, thinker.audio_end_token_id),
        )

    @property
    def placeholders(self) -> tuple[int, int, int]:
        """Ids whose rows are replaced by tower features, and which the sieve may drop."""
        return (self.audio, self.image, self.video)

    def in_pool(self, ids: Tensor) -> Tensor:
        """Which rows of token ids, of any shape, are audio-visual: bool of the same shape."""
        return torch.isin(ids, torch.tensor(self.placeholders, device=ids.device))


@dataclass(frozen=True)
class Timeline:
    """How seconds become positions: ``per_second`` steps, audio-video blocks cut every ``chunk_seconds``."""

    per_second: int = 25
    chunk_seconds: int = 2

    @classmethod
    def of(cls, thinker: Any) -> Timeline:
        """That of a thinker's configuration."""
        return cls(thinker.position_id_per_seconds, thinker.seconds_per_chunk)

    @property
    def chunk(self) -> int:
        """Positions in one audio-video chunk."""
        return self.per_second * self.chunk_seconds


def grid_times_to_steps(times: npt.ArrayLike, per_second: int) -> IntArray:
    """Seconds of each temporal grid step → whole positions, rounded down.

    Single precision, as in the reference, so that its rounding is repeated exactly.
    """
    return np.floor(np.asarray(times, dtype=np.float32) * np.float32(per_second)).astype(np.int64)


def uniform_grid_times(steps: int, second_per_grid: float) -> npt.NDArray[np.float32]:
    """Times in seconds of ``steps`` grid steps at an even spacing (the reference's assumption)."""
    return np.arange(steps, dtype=np.float32) * np.float32(second_per_grid)


def video_block(steps: IntArray, height: int, width: int) -> IntArray:
    """Positions (3, T·height·width) of a video relative to its block's start: time, row, column."""
    count = len(steps)
    rows = np.arange(height).reshape(1, -1, 1)
    columns = np.arange(width).reshape(1, 1, -1)
    shape = (count, height, width)
    axes = (steps.reshape(-1, 1, 1), rows, columns)
    return np.stack([np.broadcast_to(axis, shape).reshape(-1) for axis in axes]).astype(np.int64)


def audio_block(count: int, axes: int = 3) -> IntArray:
    """Positions (axes, count) of audio rows relative to their block's start: the same on every axis."""
    return np.broadcast_to(np.arange(count, dtype=np.int64), (axes, count))


def chunk_starts(times: IntArray, chunk: int) -> list[int]:
    """Where each chunk of a non-decreasing time axis begins.

    As in the reference, one boundary is passed per row: after a gap of several chunks the next rows each
    open one, until the count has caught up with the clock.
    """
    starts = [0]
    row = int(np.searchsorted(times, chunk))
    while row < len(times):
        starts.append(row)
        row = max(row + 1, int(np.searchsorted(times, len(starts) * chunk)))
    return starts


def interleave(video: IntArray, audio: IntArray, chunk: int) -> list[tuple[str, int, int]]:
    """Order of an audio-video block: ``("video" | "audio", first row, past the last row)`` pieces.

    Each chunk's video rows stand before its audio rows. The one rule that both the prompt's placeholders
    and the position ids follow.
    """
    pieces = []
    video_edges = [*chunk_starts(video[0], chunk), video.shape[1]]
    audio_edges = [*chunk_starts(audio[0], chunk), audio.shape[1]]
    for index in range(max(len(video_edges), len(audio_edges)) - 1):
        for name, edges in (("video", video_edges), ("audio", audio_edges)):
            if index + 1 < len(edges) and edges[index] < edges[index + 1]:
                pieces.append((name, edges[index], edges[index + 1]))
    return pieces


class _Walker:
    """Appends segments to one prompt's positions; each starts past the largest position of the one before."""

    def __init__(self, axes: int = 3) -> None:
        self.axes = axes
        self.segments: list[IntArray] = []
        self.next = 0

    def append(self, relative: IntArray, start: int | None = None) -> None:
        """Add rows (axes, n), offset by ``start`` (default: just past the previous segment)."""
        if relative.shape[1] == 0:
            return
        absolute = relative + (self.next if start is None else start)
        self.segments.append(absolute)
        # Like the reference: past the *last* segment, which in a block whose sound ends first is not the
        # block's very largest position.
        self.next = int(absolute.max()) + 1

    def text(self, count: int) -> None:
        """Add ``count`` text rows, one position each."""
        self.append(audio_block(count, self.axes))

    def shared_pair(self) -> None:
        """Add two border tokens on one position (the doubled BOS or EOS of an audio-video block)."""
        self.append(np.zeros((self.axes, 2), dtype=np.int64))


def _video_rows(video: tuple[Sequence[int], npt.NDArray[np.float32]], timeline: Timeline, merge: int) -> IntArray:
    """Relative positions of one video given its (T, H, W) patch grid and its grid times in seconds."""
    (_, height, width), seconds = video
    return video_block(grid_times_to_steps(seconds, timeline.per_second), height // merge, width // merge)


def _require_rows(is_placeholder: npt.NDArray[np.bool_], begin: int, end: int) -> None:
    if end > len(is_placeholder) or not is_placeholder[begin:end].all():
        raise ValueError("the prompt holds fewer placeholder tokens than the media given have rows")


def _prompt_positions(
    ids: IntArray,
    special: SpecialTokens,
    timeline: Timeline,
    merge: int,
    image_grids: Iterator[Sequence[int]],
    videos: Iterator[tuple[Sequence[int], npt.NDArray[np.float32]]],
    audio_rows: Iterator[int],
) -> IntArray:
    """Positions (3, n) of one unpadded prompt."""
    walker = _Walker()
    is_placeholder = np.isin(ids, special.placeholders)
    at = 0
    while at < len(ids):
        ahead = np.flatnonzero(is_placeholder[at:])
        if len(ahead) == 0:
            walker.text(len(ids) - at)
            break
        first = at + int(ahead[0])
        kind = int(ids[first])
        in_av_block = first >= 2 and ids[first - 1] == special.audio_start and ids[first - 2] == special.vision_start
        if in_av_block:
            walker.text(first - 2 - at)
            walker.shared_pair()
            block, sound = _video_rows(next(videos), timeline, merge), audio_block(next(audio_rows))
            end_of_block = first + block.shape[1] + sound.shape[1]
            _require_rows(is_placeholder, first, end_of_block)
            start = walker.next
            for name, begin, end in interleave(block, sound, timeline.chunk):
                walker.append((block if name == "video" else sound)[:, begin:end], start)
            walker.shared_pair()
            at = end_of_block + 2
            continue
        walker.text(first - at)
        if kind == special.audio:
            block = audio_block(next(audio_rows))
        elif kind == special.image:
            grid = next(image_grids)
            block = _video_rows((grid, uniform_grid_times(grid[0], 1.0)), timeline, merge)
        else:
            block = _video_rows(next(videos), timeline, merge)
        at = first + block.shape[1]
        _require_rows(is_placeholder, first, at)
        walker.append(block)
    return np.concatenate(walker.segments, axis=1)


def film_positions(special: SpecialTokens, ids: Sequence[int], block: IntArray) -> tuple[Tensor, Tensor]:
    """Positions of a prompt whose media rows have positions (4, n) of their own; as :func:`position_ids` gives them."""
    paired = special.audio_start in ids and special.vision_start in ids
    media = (place for place, token in enumerate(ids) if token in special.placeholders)
    before = ids.index(special.audio_start) + 1 if paired else next(media, len(ids))
    return block_positions(before, block, len(ids) - before - block.shape[1], paired=paired)


def film_shares(text: Any, starts: npt.NDArray[np.float64], begin: float, end: float) -> npt.NDArray[np.float64] | None:
    """How much of a film is over when rows (n,) begin, in seconds; None if the decoder's ``text`` does not want it."""
    return (starts - begin) / (end - begin) if text.film_time == "whole" else None


def joined_positions(
    windows: IntArray,
    positions: IntArray,
    is_audio: npt.NDArray[np.bool_],
    *,
    gap: int,
    longest: int,
    shares: npt.NDArray[np.float64] | None = None,
) -> IntArray:
    """Positions (4, n) in one block of rows that come from several windows, in order of time.

    Windows follow one another, ``gap`` positions apart; order and spacing within a window stay. Where all together
    reach further than ``longest``, time is compressed to that. So it is on both axes of time, the first and the last;
    with ``shares`` the last one, whose rotary frequencies are the lowest, says instead where in the film a row is.

    Args:
        windows: (n,) ascending, the window of each row.
        positions: (3, n) relative to the start of the row's window.
        is_audio: (n,) rows of sound, whose three positions are all time.
        gap: positions between two windows.
        longest: positions that the model was trained on, over which ``shares`` are spread.
        shares: (n,) how much of the film, from 0 to 1, is over when a row begins.
    """
    times = positions[0].astype(np.float64)
    base = 0.0
    for window in np.unique(windows):
        own = windows == window
        least, most = times[own].min(), times[own].max()
        times[own] += base - least
        base += most - least + gap
    if len(times) and times.max() >= longest:
        times *= (longest - 1) / times.max()
    joined = np.concatenate([positions, positions[:1]])
    joined[0] = np.floor(times).astype(np.int64)
    joined[:, is_audio] = joined[0, is_audio]
    joined[3] = joined[0]
    if shares is not None:
        joined[3] = np.floor(shares * longest + _ROUNDING).clip(0, longest - 1).astype(np.int64)
    return joined


def block_positions(before: int, block: IntArray, after: int, *, paired: bool) -> tuple[Tensor, Tensor]:
    """Positions of a prompt whose one block of media has positions of its own, as rows of many windows have.

    Args:
        before: text rows before the block, with the border tokens.
        block: (4, n) relative to the block's start.
        after: text rows behind it, with the border tokens.
        paired: whether two border tokens on either side share one position, as around picture and sound together.

    Returns:
        as :func:`position_ids`, for one prompt.
    """
    walker, border = _Walker(axes=4), 2 if paired else 0
    walker.text(before - border)
    if paired:
        walker.shared_pair()
    walker.append(block)
    if paired:
        walker.shared_pair()
    walker.text(after - border)
    four = np.concatenate(walker.segments, axis=1)
    delta = int(four.max()) + 1 - four.shape[1]
    return torch.from_numpy(four)[:, None], torch.tensor([[delta]])


def position_ids(
    input_ids: Tensor,
    special: SpecialTokens,
    *,
    attention_mask: Tensor | None = None,
    image_grid_thw: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    video_grid_times: Sequence[npt.ArrayLike] | None = None,
    audio_rows: Sequence[int] = (),
    spatial_merge_size: int = 2,
    timeline: Timeline = Timeline(),
) -> tuple[Tensor, Tensor]:
    """Positions of every prompt row on the four axes time, height, width, time.

    Args:
        input_ids: (B, L); media stand in it as runs of placeholder ids.
        special: the checkpoint's special ids.
        attention_mask: (B, L), 0 at padding on either side; None when nothing is padded.
        image_grid_thw: (images, 3) patch grids, in the order of the prompts.
        video_grid_thw: (videos, 3) patch grids.
        video_grid_times: per video, the seconds at which each temporal grid step is shown (T values,
            from the block's start).
        audio_rows: per sound, its number of rows (25 a second).
        spatial_merge_size: patches merged per side into one row.
        timeline: positions per second and chunk length.

    Returns:
        ``position_ids`` (4, B, L) and ``rope_deltas`` (B, 1). Padding has position 1. The first generated
        token has position ``rows + rope_delta``, with the prompt's rows counted without padding and before
        the sieve drops any.

    Raises:
        ValueError: the placeholders in the prompt do not match the media given.

    Source: paper, Sync-RoPE, over the family's ``get_rope_index``; as there, a segment starts past the one just
    before it.
    """
    batch, length = input_ids.shape
    ids = input_ids.cpu().numpy()
    valid = np.ones_like(ids, dtype=bool) if attention_mask is None else attention_mask.cpu().numpy().astype(bool)
    image_grids = iter([] if image_grid_thw is None else image_grid_thw.tolist())
    video_grids = [] if video_grid_thw is None else video_grid_thw.tolist()
    seconds = [np.asarray(times, dtype=np.float32) for times in video_grid_times or ()]
    if len(seconds) != len(video_grids) or any(
        len(times) != grid[0] for times, grid in zip(seconds, video_grids, strict=True)
    ):
        raise ValueError("video_grid_times must give one time for each temporal step of each video")
    videos, sounds = iter(zip(video_grids, seconds, strict=True)), iter(audio_rows)
    output = np.ones((4, batch, length), dtype=np.int64)
    deltas = np.zeros((batch, 1), dtype=np.int64)
    for row in range(batch):
        try:
            three = _prompt_positions(
                ids[row][valid[row]], special, timeline, spatial_merge_size, image_grids, videos, sounds
            )
        except StopIteration:
            raise ValueError("the prompt holds more media blocks than media were given") from None
        output[:, row, valid[row]] = np.concatenate([three, three[:1]])
        deltas[row] = three.max() + 1 - three.shape[1]
    device = input_ids.device
    return torch.from_numpy(output).to(device), torch.from_numpy(deltas).to(device)


@lru_cache(maxsize=64)
def frequencies(count: int, theta: float, device: torch.device) -> Tensor:
    """The ``count`` frequencies (count,) of half a head, highest first, single precision. Shared: not to be changed."""
    with torch.inference_mode(False):
        return 1.0 / (theta ** (torch.arange(0, 2 * count, 2, dtype=torch.float32, device=device) / (2 * count)))


@lru_cache(maxsize=64)
def _axes(sections: tuple[int, ...], device: torch.device) -> Tensor:
    """Which axis each frequency follows."""
    with torch.inference_mode(False):
        return torch.tensor([axis for axis, size in enumerate(sections) for _ in range(size)], device=device)


def rotary_embedding(positions: Tensor, sections: Sequence[int], theta: float, dtype: torch.dtype) -> Rotary:
    """Cosine and sine (B, L, head_dim) of axis-split rotary angles.

    Half a head has ``sum(sections)`` frequencies, highest first; section i follows axis i. ``[18,18,18,10]``
    over ``[T,H,W,T]`` is Sync-RoPE (paper, Sync-RoPE), ``[16,24,24]`` the family's M-RoPE.

    Args:
        positions: (axes, B, L) integer positions, one axis per section.
        sections: frequencies per axis.
        theta: base of the geometric series of frequencies.
        dtype: of the result; the angles themselves are single precision.
    """
    axis_of = _axes(tuple(sections), positions.device)
    # (B, L, half)
    angles = positions[axis_of].permute(1, 2, 0).float() * frequencies(len(axis_of), theta, positions.device)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rotary(heads: Tensor, rotary: Rotary) -> Tensor:
    """Queries or keys (…, heads, head_dim) rotated by the angles of their rows."""
    cosine, sine = (part.unsqueeze(-2) for part in rotary)
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine
