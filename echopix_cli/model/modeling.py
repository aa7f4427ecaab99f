"""EchoingPixels as a whole checkpoint: the thinker under the authors' names."""

from __future__ import annotations

import torch
from torch import nn

from echopix_cli.model.configuration import EchoingPixelsConfig
from echopix_cli.model.layers import Recomputing
from echopix_cli.model.thinker import EchoingPixelsThinker


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
