"""Small models, settings and batches that the tests share."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from palinode.core import seeds
from palinode.data.scenes import EmojiCorpus
from palinode.models import unconditional
from palinode.params.fields import Training
from palinode.training.batches import Batch

# Bytes depend on the number of threads, and a test runs on every core: more threads would wait for each other.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first, so that no worker is left alone with a long file at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


EMOJI = Path(__file__).parent.parent / "data/emoji"

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "clip_sample": True,
    "variance_type": "fixed_small",
}
UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D"] * 2,
    "up_block_types": ["UpBlock2D"] * 2,
    "norm_num_groups": 4,
}
TEXT_SCHEDULER = {
    "num_train_timesteps": 100,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.05,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,
}
TEXT_MODEL = {
    "vae": {
        "sample_size": 32,
        "block_out_channels": [8, 8, 16],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "latent_channels": 4,
        "scaling_factor": 0.5,
    },
    "text_encoder": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
    },
    "unet": {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ["CrossAttnDownBlock2D"] * 2,
        "up_block_types": ["CrossAttnUpBlock2D"] * 2,
    },
}


@pytest.fixture
def model():
    """A fresh 8-pixel UNet2DModel, the same weights every time."""
    return unconditional.create(UNET, SCHEDULER, seed=1)


@pytest.fixture(scope="session")
def corpus() -> EmojiCorpus:
    """The shipped emoji."""
    return EmojiCorpus.read(EMOJI)


def random_batch(size: int = 8, seed: int = 0, total: int = 1000, t: int | None = None) -> Batch:
    """A batch of random 8-pixel images."""
    generator = seeds.generator("test", seed)
    x, a = torch.rand(2, size, 1, 8, 8, generator=generator) * 2 - 1
    steps = torch.randint(total, (size,), generator=generator) if t is None else torch.full((size,), t)
    eps = torch.randn(x.shape, generator=generator)
    return Batch(x, a, steps, eps, torch.rand(size, generator=generator), total, generator)


def training(**changes) -> Training:
    """Settings of a short training run."""
    return Training(**({"steps": 6, "lr": 1e-3, "batch": 4} | changes))
