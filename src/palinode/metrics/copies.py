"""Whether a picture copies one of the fixed pictures that the emoji bases memorize, by pixel distance."""

import numpy as np
import torch

from palinode.core.images import to_model
from palinode.data import emoji
from palinode.data.scenes import EmojiCorpus

COPY = 0.08  # root mean squared difference below which a sample is a copy, pixels in [0, 1]; 0.15 in Carlini et al.


def copy_distance(images: np.ndarray, corpus: EmojiCorpus) -> np.ndarray:
    """Root mean squared difference of each image to each fixed picture, [N, pictures], pixels in [0, 1].

    images: uint8 [N, H, W, C]. The corner that a template varies is left out, for every picture alike.
    """
    pictures = emoji.fixed(corpus.fixed, corpus.pictures, corpus.stickers, torch.Generator())
    mask = torch.ones(pictures.shape[-2:])
    side = corpus.stickers.shape[-1]
    mask[-side:, -side:] = 0
    x = (to_model(images) / 2 + 0.5)[..., mask.bool()].flatten(1)
    y = pictures[..., mask.bool()].flatten(1)
    return (torch.cdist(x, y) / x.shape[1] ** 0.5).numpy()
