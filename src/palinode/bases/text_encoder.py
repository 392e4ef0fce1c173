"""Training a text encoder by contrast with pictures, as CLIP's was (Radford et al. 2021, arXiv:2103.00020).

The states of a caption's end token and a small network's view of the latents are projected to one space, in which each
picture of a batch has to find its own caption and each caption its own picture. Without it the denoiser would have to
teach the text encoder, which takes several times as long: what noise is left to predict says little about words.
Captions that are alike in a batch, such as empty ones, count as wrong for each other's pictures, as in CLIP.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palinode.models.text_to_image import TextToImage
from palinode.training.denoising import ConditionalBatch, OneLoss

WIDTH = 128  # of the shared space, and of the picture network
TEMPERATURE = 0.07  # at the start; it is learnt, and kept at 0.01 or more


class PairEncoder(nn.Module):
    """A text encoder beside a network that looks at latents; initial weights depend on the seed alone."""

    def __init__(self, model: TextToImage, seed: int):
        super().__init__()
        self.text_encoder = model.text_encoder
        self.end = model.tokenizer.eos_token_id
        channels, height, width = model.shape
        flat = WIDTH * -(-height // 2) * -(-width // 2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pictures = nn.Sequential(
                nn.Conv2d(channels, WIDTH // 2, 3, padding=1), nn.GELU(),
                nn.Conv2d(WIDTH // 2, WIDTH, 3, 2, 1), nn.GELU(),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(flat, WIDTH),
            )  # fmt: skip
            self.captions = nn.Linear(model.text_encoder.config.hidden_size, WIDTH, bias=False)
        self.scale = nn.Parameter(torch.tensor(-math.log(TEMPERATURE)))

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """Similarity of each picture (rows) to each caption (columns), [B, B]; latents [B, C, h, w], tokens [B, L]."""
        states = self.text_encoder(tokens).last_hidden_state
        ends = states[torch.arange(len(tokens)), (tokens == self.end).int().argmax(1)]
        pictures = F.normalize(self.pictures(latents), dim=1)
        captions = F.normalize(self.captions(ends), dim=1)
        return self.scale.exp().clamp(max=100) * pictures @ captions.T


@dataclass
class Contrast(OneLoss):
    """Mean of the two cross-entropies: of captions given a picture, and of pictures given a caption."""

    encoder: PairEncoder

    def losses(self, model: Any, batch: ConditionalBatch) -> dict[str, Tensor]:
        similar = self.encoder(batch.x, batch.prompt)
        own = torch.arange(len(similar), device=similar.device)
        return {"objective": (F.cross_entropy(similar, own) + F.cross_entropy(similar.T, own)) / 2}
