"""Latent text-to-image models: a StableDiffusionPipeline folder as a noise predictor with encode, decode, condition."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from palinode.diffusion import Schedule
from palinode.errors import UserError
from palinode.io import atomic, read_json, write_json
from palinode.models import Diffuser, cast, locate

START, END = "<|startoftext|>", "<|endoftext|>"
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

    shape: (C, h, w) of one latent; vae, text_encoder, tokenizer: the parts of the folder; nothing: the prompt that
    guidance starts from.
    """

    nothing = ""

    def __init__(self, unet, schedule: Schedule, config: dict, vae, text_encoder, tokenizer, precision: str = "fp32"):
        super().__init__(unet, schedule, config, precision)
        self.vae, self.text_encoder, self.tokenizer = vae, text_encoder, tokenizer
        self._known: dict[str, bool] = {}

    def _named(self, condition: Tensor) -> dict[str, Tensor]:
        return {"encoder_hidden_states": condition}

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] to scaled latents: the mean of the posterior, so that nothing is drawn."""
        return self.vae.encode(images).latent_dist.mean * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to images [B, 3, H, W], nominally in [-1, 1]."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def tokens(self, prompts: list[str]) -> Tensor:
        """Token ids, int64 [B, L].

        Warns of a word the tokenizer does not know; UserError for a prompt that is too long, or has no known word.
        """
        longest, ids = self.tokenizer.model_max_length, self.tokenizer(prompts).input_ids
        for prompt, encoded in zip(prompts, ids, strict=True):
            unknown = self.unknown_words(prompt)
            if unknown:
                if len(unknown) == len(set(_words(prompt))):
                    raise UserError(f"the prompt {prompt!r} holds no word that the text encoder knows")
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

    def condition(self, prompts: list[str]) -> Tensor:
        """Prompts to the states that the network attends to, [B, L, D]."""
        return self.states(self.tokens(prompts))

    def last_states(self, prompts: list[str]) -> Tensor:
        """The states of each prompt's last word, [N, D]."""
        tokens = self.tokens(prompts)
        last = (tokens == self.tokenizer.eos_token_id).int().argmax(1) - 1
        return self.states(tokens)[torch.arange(len(tokens)), last]

    def states(self, given: Tensor) -> Tensor:
        """What `predict` takes for token ids [B, L]: the text encoder's states, [B, L, D]."""
        return self.text_encoder(given).last_hidden_state


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
    ids = {"bos_token_id": vocabulary[START], "eos_token_id": vocabulary[END], "pad_token_id": vocabulary[END]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(**settings["vae"])
        encoder = CLIPTextModel(CLIPTextConfig(vocab_size=len(vocabulary), **ids, **text))
        unet = UNet2DConditionModel(**settings["unet"], cross_attention_dim=text["hidden_size"])
    schedule = Schedule.from_config(scheduler)
    return TextToImage(unet.eval(), schedule, scheduler, vae.eval(), encoder.eval(), tokenizer)


def word_vocabulary(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-pair encoding learnt until every word is one token: (token -> id, merges in order).

    Ties between pairs go to the first in the alphabet (a library breaks them at random, so that two runs would differ).
    """
    splits = {word: [*word[:-1], f"{word[-1]}</w>"] for word in sorted(set(words))}
    letters = sorted(set("".join(words)))
    tokens, merges = [START, END, *letters, *(f"{letter}</w>" for letter in letters)], []
    while True:
        counts: dict[tuple[str, str], int] = {}
        for split in splits.values():
            for pair in zip(split, split[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        tokens.append("".join(best))
        splits = {word: _merged(split, best) for word, split in splits.items()}


def _merged(split: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for token in split:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out


def load(source: str | Path, device: str | torch.device = "cpu", precision: str = "fp32") -> TextToImage:
    """Load a StableDiffusionPipeline folder (or hub id) as float32; UserError names a missing or foreign part."""
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder, loaded = locate(source), {}
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") != "StableDiffusionPipeline":
        raise UserError(f"{folder} holds a {index.get('_class_name')}, not a StableDiffusionPipeline")
    for part in PARTS:
        if not (folder / part).is_dir():
            raise UserError(f"{folder} has no {part}/: a StableDiffusionPipeline has {', '.join(PARTS)}")
    if not any((folder / "tokenizer" / name).exists() for name in ("tokenizer.json", "merges.txt")):
        raise UserError(f"{folder / 'tokenizer'} has no merges.txt and no tokenizer.json: it would read letters")
    for part in NETWORKS:
        library, name = PARTS[part]
        if index[part] != PARTS[part]:
            raise UserError(f"{folder / part} is a {index[part][1]}, only {name} is supported")
        kind = getattr(diffusers if library == "diffusers" else transformers, name)
        try:
            loaded[part] = kind.from_pretrained(
                folder / part, use_safetensors=True, torch_dtype=torch.float32, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"cannot read {folder / part}: {str(error).splitlines()[0]}") from None
        loaded[part].to(device).eval()
    try:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / 'tokenizer'}: {str(error).splitlines()[0]}") from None
    config = read_json(folder / "scheduler/scheduler_config.json")
    unet, vae, encoder = loaded["unet"], loaded["vae"], loaded["text_encoder"]
    return TextToImage(unet, Schedule.from_config(config), config, vae, encoder, tokenizer, precision)


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
