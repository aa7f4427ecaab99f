"""EchoingPixels as a whole checkpoint: the thinker under the authors' names, known to the Auto classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMultimodalLM
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniPreTrainedModel

from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.positions import uniform_grid_times
from echopix_cli.model.thinker import EchoingPixelsThinker
from echopix_cli.model.values import Prompt, Sieved, TrainingOutput, audio_row_counts


class EchoingPixelsForConditionalGeneration(Qwen2_5OmniPreTrainedModel):
    """A whole checkpoint in the authors' layout; ``talker.*`` and ``token2wav.*`` are never needed."""

    config: EchoingPixelsConfig
    config_class = EchoingPixelsConfig
    base_model_prefix = "thinker"
    _keys_to_ignore_on_load_unexpected = (r"^talker\.", r"^token2wav\.")

    def __init__(self, config: EchoingPixelsConfig) -> None:
        super().__init__(config)
        self.thinker = EchoingPixelsThinker._from_config(config.thinker_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.thinker.get_input_embeddings()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As the parent's, but a checkpoint that lacks tensors or holds unknown ones is an error.

        Raises:
            ValueError: names the tensors; nothing is left randomly initialised without a word.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        # Mismatches are let through here only to be named below, with everything else that is wrong.
        kwargs["ignore_mismatched_sizes"] = True
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        complaints = [
            f"{what} {', '.join(sorted(str(name) for name in info[key])[:8])}"
            for key, what in (
                ("missing_keys", "lacks"),
                ("unexpected_keys", "holds unknown"),
                ("mismatched_keys", "has the wrong shape for"),
            )
            if info[key]
        ]
        if complaints:
            raise ValueError(f"this checkpoint {'; '.join(complaints)}")
        return (model, info) if wants_info else model

    def copy_sieve_from_decoder(self) -> None:
        """Initialise CS2 layer i from decoder layer i (reference README, initialisation)."""
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

        Args are the processor's: see the reference README. ``budget`` is of this call; without it the
        checkpoint's ``compression_ratio`` holds.
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


AutoModel.register(EchoingPixelsConfig, EchoingPixelsForConditionalGeneration)
AutoModelForMultimodalLM.register(EchoingPixelsConfig, EchoingPixelsForConditionalGeneration)
