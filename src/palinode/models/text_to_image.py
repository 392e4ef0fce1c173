"""Latent text-to-image models: a StableDiffusionPipeline folder as a noise predictor with encode, decode, condition."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palinode.core.errors import UserError
from palinode.core.io import atomic, read_json, write_json
from palinode.models.denoiser import Diffuser, Prompt
from palinode.models.files import cast, load_network, locate
from palinode.models.schedule import Schedule
from palinode.models.word_tokenizer import END, START, word_vocabulary

PARTS = {
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}
NONE = {"safety_checker": [None, None], "feature_extractor": [None, None], "image_encoder": [None, None]}
NETWORKS = ("vae", "text_encoder", "unet")


class TextToImage(Diffuser):
    """eps_theta(z_t, t, c) on latents z, with c = the text encoder's states of a prompt, [B, L, D].

    shape: (C, h, w) of one latent; vae, text_encoder, tokenizer: the parts of the folder.
    """

    null_prompt: Prompt = ""

    def __init__(
        self,
        unet: Any,
        schedule: Schedule,
        config: dict,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        precision: str = "fp32",
    ):
        super().__init__(unet, schedule, config, precision)
        self.vae = vae
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self._known: dict[str, bool] = {}

    def _condition_kwargs(self, condition: Tensor | None) -> dict[str, Tensor]:
        assert condition is not None, "a text-to-image model needs a condition"
        return {"encoder_hidden_states": condition}

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] to scaled latents: the mean of the posterior, so that nothing is drawn."""
        return self.vae.encode(images).latent_dist.mean * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to images [B, 3, H, W], nominally in [-1, 1]."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def prompt_ids(self, prompts: list) -> Tensor:
        """Token ids, int64 [B, L].

        Warns of a word the tokenizer does not know; UserError for a prompt that is too long, or has no known word.
        """
        longest = self.tokenizer.model_max_length
        ids = self.tokenizer(prompts).input_ids
        for prompt, encoded in zip(prompts, ids, strict=True):
            unknown = self.unknown_words(prompt)
            if unknown and len(unknown) == len(set(_words(prompt))):
                raise UserError(f"the prompt {prompt!r} holds no word that the text encoder knows")
            if unknown:
                warnings.warn(f"the text encoder does not know: {', '.join(unknown)} (in {prompt!r})", stacklevel=2)
            if len(encoded) > longest:
                raise UserError(f"the prompt {prompt!r} needs {len(encoded)} tokens, the text encoder takes {longest}")
        padding = self.tokenizer.pad_token_id
        return torch.tensor([row + [padding] * (longest - len(row)) for row in ids], device=self.device)

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that are not a single token of a word vocabulary; none for a general tokenizer."""
        if not self.tokenizer.init_kwargs.get("whole_words"):
            return []
        for word in set(_words(prompt)) - self._known.keys():
            self._known[word] = len(self.tokenizer(word).input_ids) == 3
        return [word for word in dict.fromkeys(_words(prompt)) if not self._known[word]]

    def parse_prompt(self, text: str) -> str:
        return text

    def freeze(self) -> None:
        self.net.requires_grad_(False)
        self.text_encoder.requires_grad_(False)

    def last_states(self, prompts: list[str]) -> Tensor:
        """The states of each prompt's last word, [N, D]."""
        tokens = self.prompt_ids(prompts)
        last = (tokens == self.tokenizer.eos_token_id).int().argmax(1) - 1
        return self.states(tokens)[torch.arange(len(tokens)), last]

    def states(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] to the text encoder's states, [B, L, D], which the network attends to."""
        return self.text_encoder(ids).last_hidden_state


@contextmanager
def first_token_detached(net: torch.nn.Module, active: bool = True) -> Iterator[None]:
    """While this lasts, no gradient flows through the first token's keys and values of the cross-attention.

    The outputs of the network stay as they are. As in the code of Custom Diffusion (arXiv 2212.04488), which Concept
    Ablation and DoCo took over. active: False changes nothing.
    """
    layers = [module for name, module in net.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    hooks = [layer.register_forward_hook(_detach_first) for layer in layers if active]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _detach_first(module: torch.nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return torch.cat([output[:, :1].detach(), output[:, 1:]], dim=1)


def _words(prompt: str) -> list[str]:
    return prompt.lower().replace(",", " ").split()


def create(settings: dict, scheduler: dict, words: list[str], seed: int) -> TextToImage:
    """A fresh model; initial weights depend on the seed alone.

    settings: {"vae": ..., "text_encoder": ..., "unet": ...}, arguments of AutoencoderKL, CLIPTextConfig and
    UNet2DConditionModel; words: the vocabulary, in which each word is one token.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    vocabulary, merges = word_vocabulary([*words, ","])
    text = settings["text_encoder"]
    length = text["max_position_embeddings"]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length, whole_words=True)
    end = vocabulary[END]
    ids = {"bos_token_id": vocabulary[START], "eos_token_id": end, "pad_token_id": end}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(**settings["vae"])
        encoder = CLIPTextModel(CLIPTextConfig(vocab_size=len(vocabulary), **ids, **text))
        unet = UNet2DConditionModel(**settings["unet"], cross_attention_dim=text["hidden_size"])
    schedule = Schedule.from_config(scheduler, clip=False)
    return TextToImage(unet.eval(), schedule, scheduler, vae.eval(), encoder.eval(), tokenizer)


def load(source: str | Path, device: str | torch.device = "cpu", precision: str = "fp32") -> TextToImage:
    """Load a StableDiffusionPipeline folder (or hub id) as float32; UserError names a missing or foreign part."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder = locate(source)
    index = read_json(folder / "model_index.json")
    _check_parts(folder, index)
    loaded = {part: _load_network(folder / part, PARTS[part]).to(device).eval() for part in NETWORKS}
    try:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / 'tokenizer'}: {str(error).splitlines()[0]}") from None
    config = read_json(folder / "scheduler/scheduler_config.json")
    schedule = Schedule.from_config(config, clip=False)
    return TextToImage(loaded["unet"], schedule, config, loaded["vae"], loaded["text_encoder"], tokenizer, precision)


def _check_parts(folder: Path, index: dict) -> None:
    """UserError when a part of the pipeline is missing, or of another class."""
    if index.get("_class_name") != "StableDiffusionPipeline":
        raise UserError(f"{folder} holds a {index.get('_class_name')}, not a StableDiffusionPipeline")
    for part in PARTS:
        if not (folder / part).is_dir():
            raise UserError(f"{folder} has no {part}/: a StableDiffusionPipeline has {', '.join(PARTS)}")
    if not any((folder / "tokenizer" / name).exists() for name in ("tokenizer.json", "merges.txt")):
        raise UserError(f"{folder / 'tokenizer'} has no merges.txt and no tokenizer.json: it would read letters")
    for part in NETWORKS:
        if index[part] != PARTS[part]:
            raise UserError(f"{folder / part} is a {index[part][1]}, only {PARTS[part][1]} is supported")


def _load_network(folder: Path, kind: list[str]) -> Any:
    """kind: the library and the class of the network."""
    library, name = kind
    return load_network(getattr(importlib.import_module(library), name), folder)


def save(model: TextToImage, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a folder that `StableDiffusionPipeline.from_pretrained` loads, atomically."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of writing files that take milliseconds
    networks = {"vae": model.vae, "text_encoder": model.text_encoder, "unet": model.net}
    with atomic(folder) as temporary:
        for part, network in networks.items():
            cast(network, dtype).save_pretrained(temporary / part)
            config = read_json(temporary / part / "config.json")
            config.pop("_name_or_path", None)
            write_json(temporary / part / "config.json", config)
        model.tokenizer.save_pretrained(temporary / "tokenizer")
        write_json(temporary / "scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler", **model.config})
        index = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **PARTS, **NONE}
        write_json(temporary / "model_index.json", index)
