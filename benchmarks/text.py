"""Text-to-image models: text.py sampler N | loading N | build FOLDER SIZE TEXT | large FOLDER | memorized FOLDER.

sampler: our sampling against StableDiffusionPipeline's; loading: drawing with one loaded model against loading it for
every draw; build: the Stable Diffusion 1.4 architecture with random weights, as a folder whose tokenizer knows
the words of TEXT; large: load it, encode a prompt, sample one image in 2 steps, take one plain training step;
memorized: load it, score two prompts with every detector, take one SISS step on a prompt.
"""

import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import networks
import torch
from common import REPOSITORY, parameters, peak, ratio

from palinode import methods
from palinode.core.scratch import Scratch
from palinode.data import captions
from palinode.memorization import probe
from palinode.models import text_to_image, word_tokenizer
from palinode.models.guidance import FixedCondition, Guided
from palinode.models.schedule import Schedule
from palinode.models.text_to_image import TextToImage
from palinode.params.fields import Training
from palinode.params.stage_settings import Detect
from palinode.sampling import prompted
from palinode.sampling.paired import initial_noise
from palinode.sampling.samplers import ddim
from palinode.tasks.prompts.targets import MemorizedPrompt, TrainingTarget
from palinode.tasks.prompts.unlearn import training_data
from palinode.training.concept_batches import ConceptBatches
from palinode.training.denoising import ConditionalBatch, Denoise
from palinode.training.loop import train

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
}
SCALE = 3.0
STEPS = 25
PROMPT = "a drawing of a cat"
KEY = (0, "bench")
BASE = REPOSITORY / "models/emoji/model"


def sampler(repetitions: int) -> dict:
    """Sixteen images of the shipped base, or of a network like it, both ways in turn."""
    from diffusers import StableDiffusionPipeline

    with tempfile.TemporaryDirectory() as name:
        folder = BASE if BASE.is_dir() else create_emoji_base(Path(name) / "model")
        model = text_to_image.load(folder)
        pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [PROMPT] * 16
    times = prompted.timesteps(model.config, STEPS)
    noise = initial_noise(model, KEY, 0, len(prompts))

    def theirs() -> torch.Tensor:
        options = {"guidance_scale": SCALE, "num_inference_steps": STEPS, "output_type": "pt"}
        return pipeline(prompts, latents=noise, **options).images

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        guided = Guided(model, model.condition(prompts), model.condition([""]), SCALE)
        return (model.decode(ddim(guided, noise, times)) / 2 + 0.5).clamp(0, 1)

    difference = float((ours() - theirs()).abs().max())
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repetitions)]
    compared = ratio(*zip(*pairs, strict=True))
    return {
        "ours/pipeline": compared["median"],
        "range": compared["range"],
        "largest difference": difference,
        "ms an image": 1000 * statistics.median(t for t, _ in pairs) / len(prompts),
    }


def create_emoji_base(folder: Path) -> Path:
    """The network of the base `emoji` with random weights."""
    settings = parameters()["base_models"]["emoji"]
    words = captions.vocabulary(captions.read_concepts(REPOSITORY / "data/emoji/concepts.yaml").values())
    text_to_image.save(text_to_image.create(settings["model"], settings["scheduler"], words, 1), folder)
    return folder


def loading(repetitions: int) -> dict:
    """Four draws, two prompts with 8 pictures each, in turn: with a model that is there, and loading one a draw."""
    model = text_to_image.load(BASE)

    def draw(chosen: TextToImage) -> None:
        prompted.draw(chosen, [PROMPT] * 8 + [""] * 8, KEY, SCALE, STEPS)

    draw(model)
    shared = []
    loaded = []
    for _ in range(repetitions):
        shared.append(seconds(lambda: [draw(model) for _ in range(4)]))
        loaded.append(seconds(lambda: [draw(text_to_image.load(BASE)) for _ in range(4)]))
    compared = ratio(shared, loaded)
    return {"shared/loaded": compared["median"], "range": compared["range"]}


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def build(folder: Path, size: int, text: str) -> dict:
    """Random weights of the full size, fp16 on disk."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    words = [*PROMPT.split(), "an", *re.findall("[a-z]+", text)]
    vocabulary, merges = word_tokenizer.word_vocabulary(words)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, whole_words=True)
    unet = UNet2DConditionModel(**UNET, sample_size=size // 8)
    ids = {f"{name}_token_id": vocabulary[word_tokenizer.END] for name in ("eos", "pad")}
    encoder = CLIPTextModel(CLIPTextConfig(**TEXT, **ids, bos_token_id=vocabulary[word_tokenizer.START]))
    parts = (AutoencoderKL(**VAE, sample_size=size), encoder, tokenizer)
    text_to_image.save(TextToImage(unet, Schedule.from_config(SCHEDULER), SCHEDULER, *parts), folder)
    return {}


def large(folder: Path) -> dict:
    """Seconds of each of the three, and the peak memory of this process."""
    start = time.perf_counter()
    model = text_to_image.load(folder)
    record: dict[str, float] = {"load, s": time.perf_counter() - start}
    record["million parameters"] = sum(p.numel() for p in model.net.parameters()) // 10**6
    start = time.perf_counter()
    images = prompted.draw(model, [PROMPT], KEY, 7.5, 2)
    record |= {"sample in 2 steps, s": time.perf_counter() - start, "pixels": images.shape[1], "GiB sampling": peak()}

    def batches(step: int) -> Iterator[ConditionalBatch]:
        x, eps = torch.randn(2, 1, *model.shape)
        yield ConditionalBatch(x, torch.tensor([500]), eps, model.prompt_ids([PROMPT]))

    start = time.perf_counter()
    model.text_encoder.requires_grad_(False)
    settings = Training(steps=1, lr=1e-5, batch=1, gradient_checkpointing=True)
    with Scratch("bench-large", []) as scratch:
        train(model, Denoise(model), batches, settings, scratch, "plain step")
    return record | {"one step, s": time.perf_counter() - start, "GiB": peak()}


def memorized(folder: Path) -> dict:
    """Seconds of detection and of one SISS step on latents, and the peak memory of this process."""
    model = text_to_image.load(folder)
    model.text_encoder.requires_grad_(False)
    settings = Detect(
        root_seed=KEY[0],
        name=KEY[1],
        prompts=None,
        ground_truth="list",
        generations=2,
        steps=3,
        guidance=7.5,
        batch=2,
        detectors=parameters()["detection"]["detectors"],
    )
    start = time.perf_counter()
    with Scratch("bench-detect", []) as scratch:
        scores = probe.measure(model, [PROMPT, "a drawing"], settings.detectors, settings, KEY, scratch)
    record = {"scores": len(scores), "detection, s": time.perf_counter() - start, "GiB detecting": peak()}
    data = training_data(make_target(model), model, anchored=False)
    with torch.no_grad():
        seen = FixedCondition(model, model.condition([PROMPT]))
    method = methods.load("siss", {"norm": 1.0})
    method.begin(seen, {"seed": 1})
    training = Training(steps=1, lr=1e-5, batch=1, gradient_checkpointing=True)
    start = time.perf_counter()
    with Scratch("bench-memorized", []) as scratch:
        train(seen, method, ConceptBatches(data, model, 1, 1, KEY), training, scratch, "SISS step")
    return record | {"SISS step, s": time.perf_counter() - start, "GiB": peak()}


def make_target(model: TextToImage) -> TrainingTarget:
    """Random latents to retain and to forget under the prompt."""
    prompt = MemorizedPrompt(
        text=PROMPT,
        kind="unlabelled",
        score=0.0,
        modified="",
        trained_on=PROMPT,
        picture=-1,
        edits=[],
        memorized={},
        agrees={},
    )
    retain, forget = torch.randn(2, 2, *model.shape)
    return TrainingTarget(prompt, retain, forget, torch.zeros(2, 1, dtype=torch.int64))


COMMANDS: dict[str, Callable[..., dict]] = {
    "sampler": lambda repetitions: sampler(int(repetitions)),
    "loading": lambda repetitions: loading(int(repetitions)),
    "build": lambda folder, size, text: build(Path(folder), int(size), text),
    "large": lambda folder: large(Path(folder)),
    "memorized": lambda folder: memorized(Path(folder)),
}


if __name__ == "__main__":
    networks.setup()
    command, *rest = sys.argv[1:]
    print(json.dumps(COMMANDS[command](*rest)))
