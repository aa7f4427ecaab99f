"""EchoingPixels as a whole checkpoint: the thinker under the authors' names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.layers import Recomputing
from echopix_cli.model.positions import uniform_grid_times
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.model.values import Prompt, Sieved, TrainingOutput, audio_row_counts


class EchoingPixelsForConditionalGeneration(nn.Module):
    """A whole checkpoint in the authors' layout; ``talker.*`` and ``token2wav.*`` are never needed."""

    def __init__(self, config: EchoingPixelsConfig) -> None:
        super().__init__()
        self.config = config
        self.thinker = EchoingPixelsThinker(config.thinker_config)

    @torch.no_grad()
    def draw_weights(self) -> None:
        """Random weights as the family begins with: normal for matrices, zero for biases, one for norms."""
        thinker = self.config.thinker_config
        for name, parameter in self.named_parameters():
            part = "vision" if ".visual." in name else "audio" if ".audio_tower." in name else "text"
            if name.endswith(".bias"):
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, getattr(thinker, f"{part}_config").initializer_range)

    def recompute_activations(self) -> None:
        """While it is trained, compute the layers' inner activations again in the backward pass, not keep them."""
        for module in self.modules():
            if isinstance(module, Recomputing):
                module.recomputes = True

    def copy_sieve_from_decoder(self) -> None:
        """Initialise CS2 layer i from decoder layer i."""
        encoder = self.thinker.model.bidir_encoder
        if encoder is not None:
            for target, source in zip(encoder.layers, self.thinker.model.layers, strict=False):
                target.load_state_dict(source.state_dict())

    def forward(
        self,
        input_ids: Tensor,
        *,
        budget: float | None = None,
        attention_mask: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        video_second_per_grid: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        input_features: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> TrainingOutput | Sieved:
        """The family's usual inputs, embedded and sieved; with labels, decoded to a loss too.

        ``budget`` is of this call; without it the checkpoint's ``compression_ratio`` holds.
        """
        prompt = self.prompt(
            input_ids,
            attention_mask=attention_mask,
            pixel_values_videos=pixel_values_videos,
            video_grid_thw=video_grid_thw,
            video_second_per_grid=video_second_per_grid,
            pixel_values=pixel_values,
            image_grid_thw=image_grid_thw,
            input_features=input_features,
            feature_attention_mask=feature_attention_mask,
        )
        fraction = self.config.text.compression_ratio if budget is None else budget
        if labels is None:
            return self.thinker.sieve(prompt, fraction)
        output: TrainingOutput = self.thinker(prompt, labels, fraction)
        return output

    def prompt(
        self,
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
        """Encode the media of a batch and place them in its prompts (towers and steps 1–2)."""
        thinker = self.thinker
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
