"""Made-up media and their prompts as model inputs, alone and as padded batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from echopix_cli.model.modeling import EchoingPixelsForConditionalGeneration
from echopix_cli.model.positions import audio_block, grid_times_to_steps, interleave, uniform_grid_times, video_block
from echopix_cli.model.values import Prompt, audio_row_counts

MERGE = 2


@dataclass(frozen=True)
class Media:
    """Grid steps, rows and columns of merged cells (of a video or a still), and log-mel frames; zeros for none."""

    cells: tuple[int, int, int] = (0, 0, 0)
    second_per_grid: float = 1.0
    mel_frames: int = 0
    still: bool = False
    question: int = 9

    @property
    def together(self) -> bool:
        """Whether picture and sound form one block."""
        return self.cells[0] > 0 and self.mel_frames > 0


def make_media(kind: str) -> Media:
    """Media by name."""
    return {
        "both": Media((4, 2, 3), 0.96, 400),
        "long sound": Media((2, 2, 2), 1.0, 900),
        "long picture": Media((7, 1, 2), 1.3, 150),
        "video": Media((5, 2, 3), 0.7),
        "audio": Media(mel_frames=333),
        "image": Media((1, 3, 2), still=True),
        "text": Media(),
    }[kind]


def inputs_of(model: EchoingPixelsForConditionalGeneration, media: Media, seed: int = 0) -> dict[str, Tensor]:
    """Ids, random patches and random log-mel: five words, the media's block, the question."""
    config = model.config.thinker_config
    source = torch.Generator().manual_seed(seed)
    rows = int(audio_row_counts(torch.tensor(media.mel_frames))) if media.mel_frames else 0
    steps, height, width = media.cells
    video, audio = [config.video_token_id], [config.audio_token_id]
    if media.together:
        times = grid_times_to_steps(uniform_grid_times(steps, media.second_per_grid), config.position_id_per_seconds)
        chunk = config.position_id_per_seconds * config.seconds_per_chunk
        block = [config.vision_start_token_id, config.audio_start_token_id]
        for kind, begin, end in interleave(video_block(times, height, width), audio_block(rows), chunk):
            block += (video if kind == "video" else audio) * (end - begin)
        block += [config.audio_end_token_id, config.vision_end_token_id]
    elif steps:
        kind_id = [config.image_token_id] if media.still else video
        block = [config.vision_start_token_id, *kind_id * (steps * height * width), config.vision_end_token_id]
    elif rows:
        block = [config.audio_start_token_id, *audio * rows, config.audio_end_token_id]
    else:
        block = []
    words = torch.randint(40, 300, (5 + media.question,), generator=source).tolist()
    inputs = {"input_ids": torch.tensor([[*words[:5], *block, *words[5:]]])}
    if steps:
        grid = torch.tensor([[steps, height * MERGE, width * MERGE]])
        pixels = torch.randn(steps * height * width * MERGE**2, 1176, generator=source)
        names = ("pixel_values", "image_grid_thw") if media.still else ("pixel_values_videos", "video_grid_thw")
        inputs |= dict(zip(names, (pixels, grid), strict=True))
        if not media.still:
            inputs["video_second_per_grid"] = torch.tensor([media.second_per_grid])
    if rows:
        inputs["input_features"] = torch.randn(1, 128, media.mel_frames, generator=source)
        inputs["feature_attention_mask"] = torch.ones(1, media.mel_frames, dtype=torch.long)
    return inputs


def prompt_of(
    model: EchoingPixelsForConditionalGeneration,
    input_ids: Tensor,
    *,
    attention_mask: Tensor | None = None,
    pixel_values_videos: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    video_second_per_grid: Tensor | None = None,
    pixel_values: Tensor | None = None,
    image_grid_thw: Tensor | None = None,
    input_features: Tensor | None = None,
    feature_attention_mask: Tensor | None = None,
) -> Prompt:
    """The family's usual inputs through the towers and placed, ready for the sieve."""
    thinker = model.thinker
    video = image = audio = times = None
    rows: list[int] = []
    if pixel_values_videos is not None and video_grid_thw is not None:
        video = thinker.encode_pixels(pixel_values_videos, video_grid_thw)
        spacing = [1.0] * len(video_grid_thw) if video_second_per_grid is None else video_second_per_grid.tolist()
        times = [uniform_grid_times(int(g[0]), s) for g, s in zip(video_grid_thw, spacing, strict=True)]
    if pixel_values is not None and image_grid_thw is not None:
        image = thinker.encode_pixels(pixel_values, image_grid_thw)
    if input_features is not None:
        frames = (
            torch.full((len(input_features),), input_features.shape[2], device=input_features.device)
            if feature_attention_mask is None
            else feature_attention_mask.sum(dim=1)
        )
        audio = thinker.encode_mel(input_features, frames)
        rows = audio_row_counts(frames).tolist()
    return thinker.place(
        input_ids,
        attention_mask=attention_mask,
        video_features=video,
        video_grid_thw=video_grid_thw,
        video_grid_times=times,
        image_features=image,
        image_grid_thw=image_grid_thw,
        audio_features=audio,
        audio_rows=rows,
    )


def padded(prompts: list[Prompt], side: str) -> Prompt:
    """Several single prompts as one batch, padded on one side."""
    width = max(p.embeds.shape[1] for p in prompts)
    rows: dict[str, list[Tensor]] = {"embeds": [], "input_ids": [], "position_ids": [], "mask": []}
    for p in prompts:
        short = width - p.embeds.shape[1]
        pad = (short, 0) if side == "left" else (0, short)
        rows["embeds"].append(torch.nn.functional.pad(p.embeds, (0, 0, *pad), value=0.7))
        rows["input_ids"].append(torch.nn.functional.pad(p.input_ids, pad, value=0))
        rows["position_ids"].append(torch.nn.functional.pad(p.position_ids, pad, value=1))
        rows["mask"].append(torch.nn.functional.pad(torch.ones_like(p.input_ids), pad))
    return Prompt(
        torch.cat(rows["embeds"]),
        torch.cat(rows["input_ids"]),
        torch.cat(rows["position_ids"], dim=1),
        torch.cat([p.rope_deltas for p in prompts]),
        torch.cat(rows["mask"]),
    )
