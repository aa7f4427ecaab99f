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
