"""Text-to-image models: text.py sampler N | looks N | build FOLDER SIZE TEXT | large FOLDER | memorized FOLDER.

sampler: our sampling against StableDiffusionPipeline's; looks: looking at prompts with one loaded model against loading
it for every look; build: the Stable Diffusion 1.4 architecture with random weights, as a folder whose tokenizer knows
the words of TEXT; large: load it, encode a prompt, sample one image in 2 steps, take one plain training step;
memorized: load it, score two prompts with every detector, take one SISS step on a prompt.
"""

import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import networks
import torch
from common import REPOSITORY, parameters, peak, ratio

from palinode import methods
from palinode.core.scratch import Scratch
from palinode.data import captions
from palinode.memorization import probe
from palinode.models import text_to_image, word_tokenizer
from palinode.models.guidance import Guided
from palinode.models.schedule import Schedule
from palinode.models.text_to_image import TextToImage
from palinode.params import Training
from palinode.sampling import prompted
from palinode.sampling.samplers import ddim
from palinode.tasks.prompts import unlearning
from palinode.training.concept_batches import ConceptBatches
from palinode.training.denoising import ConditionalBatch, Denoise
from palinode.training.loop import train

SCHEDULER = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
             "prediction_type": "epsilon", "clip_sample": False, "set_alpha_to_one": False,
             "steps_offset": 1}  # fmt: skip
UNET = {"in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": 8,
        "cross_attention_dim": 768, "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3}  # fmt: skip
VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
       "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}  # fmt: skip
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "max_position_embeddings": 77, "vocab_size": 49408}  # fmt: skip
SCALE, STEPS, PROMPT = 3.0, 25, "a drawing of a cat"


def sampler(repetitions: int) -> dict:
    """Sixteen images of the shipped base, or of a network like it, both ways in turn."""
    from diffusers import StableDiffusionPipeline

    with tempfile.TemporaryDirectory() as name:
        folder = REPOSITORY / "models/emoji/base"
        if not folder.is_dir():
            folder = Path(name) / "model"
            settings = parameters()["text_bases"]["emoji"]
            words = captions.vocabulary(captions.read_concepts(REPOSITORY / "data/emoji/concepts.yaml").values())
            text_to_image.save(text_to_image.create(settings["model"], settings["scheduler"], words, 1), folder)
        model = text_to_image.load(folder)
        pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompts, when = [PROMPT] * 16, prompted.timesteps(model.config, STEPS)
    noise = prompted.noise(model, (0, "bench"), 0, len(prompts))

    def theirs() -> torch.Tensor:
        options = {"guidance_scale": SCALE, "num_inference_steps": STEPS, "output_type": "pt"}
        return pipeline(prompts, latents=noise, **options).images

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        guided = Guided(model, model.condition(prompts), model.condition([""]), SCALE)
        return (model.decode(ddim(guided, noise, when, draw=lambda: None)) / 2 + 0.5).clamp(0, 1)

    difference = float((ours() - theirs()).abs().max())
    times = [(seconds(ours), seconds(theirs)) for _ in range(repetitions)]
    found = ratio(*zip(*times, strict=True))
    return {"ours/pipeline": found["median"], "range": found["range"], "largest difference": difference,
            "ms an image": 1000 * statistics.median(t for t, _ in times) / len(prompts)}  # fmt: skip


def looks(repetitions: int) -> dict:
    """Four looks, two prompts with 16 pictures each, in turn: with a model that is there, and loading one a look."""
    folder = REPOSITORY / "models/emoji/base"
    model = text_to_image.load(folder)

    def look(of: TextToImage) -> None:
        prompted.draw(of, [PROMPT] * 8 + [""] * 8, (0, "bench"), SCALE, STEPS)

    look(model)
    shared, loaded = [], []
    for _ in range(repetitions):
        shared.append(seconds(lambda: [look(model) for _ in range(4)]))
        loaded.append(seconds(lambda: [look(text_to_image.load(folder)) for _ in range(4)]))
    found = ratio(shared, loaded)
    return {"shared/loaded": found["median"], "range": found["range"]}


def seconds(function) -> float:
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
    found = {"load, s": time.perf_counter() - start}
    found["million parameters"] = sum(p.numel() for p in model.net.parameters()) // 10**6
    start = time.perf_counter()
    images = prompted.draw(model, [PROMPT], (0, "bench"), 7.5, 2)
    found |= {"sample in 2 steps, s": time.perf_counter() - start, "pixels": images.shape[1], "GiB sampling": peak()}

    def batches(step: int):
        x, eps = torch.randn(2, 1, *model.shape)
        yield ConditionalBatch(x, torch.tensor([500]), eps, model.tokens([PROMPT]))

    start = time.perf_counter()
    model.text_encoder.requires_grad_(False)
    settings = Training(steps=1, lr=1e-5, batch=1, gradient_checkpointing=True)
    with Scratch("bench-large", []) as scratch:
        train(model, Denoise(model), batches, settings, scratch, "plain step")
    return found | {"one step, s": time.perf_counter() - start, "GiB": peak()}


def memorized(folder: Path) -> dict:
    """Seconds of detection and of one SISS step on latents, and the peak memory of this process."""
    model, prompts = text_to_image.load(folder), [PROMPT, "a drawing"]
    model.text_encoder.requires_grad_(False)
    settings = SimpleNamespace(detectors=parameters()["detection"]["detectors"], generations=2, steps=3, guidance=7.5,
                               batch=2)  # fmt: skip
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        scores = probe.measure(model, prompts, settings, (0, "bench"), Path(name))
    found = {"scores": len(scores), "detection, s": time.perf_counter() - start, "GiB detecting": peak()}
    keep, forget = torch.randn(2, 2, *model.shape)
    subject = SimpleNamespace(prompt=SimpleNamespace(told=PROMPT), retain=keep, forget=forget, traced=keep[:, None])
    data = unlearning.training_data(subject, model, 1, anchored=False)
    with torch.no_grad():
        told = unlearning.FixedCondition(model, model.condition([PROMPT]))
    start, method = time.perf_counter(), methods.load("siss")
    training = Training(steps=1, lr=1e-5, batch=1, gradient_checkpointing=True)
    with Scratch("bench-memorized", []) as scratch:
        train(told, method, ConceptBatches(data, model, 1, 1, (0, "bench")), training, scratch, "SISS step")
    return found | {"SISS step, s": time.perf_counter() - start, "GiB": peak()}


if __name__ == "__main__":
    networks.setup()
    what, *rest = sys.argv[1:]
    run = {"sampler": lambda n: sampler(int(n)), "looks": lambda n: looks(int(n)),
           "build": lambda to, n, text: build(Path(to), int(n), text), "large": lambda where: large(Path(where)),
           "memorized": lambda where: memorized(Path(where))}[what]  # fmt: skip
    print(json.dumps(run(*rest)))
