"""Every metric, registered once: its label, unit, better direction and digits, and where the report shows it.

A name may hold placeholders, as in `kid_{network}`; `PLACEHOLDERS` lists their values and what these are called in a
label. A metric in no entry is refused, so a new metric starts with a line here. To have it in a kind's main table, and
so in `results/metrics.json`, add its name to `main` of that kind. Code that computes does not read this module.
"""

import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from palinode.core.errors import UserError

if TYPE_CHECKING:  # it imports NumPy, which nothing here needs
    from palinode.core.ranges import Name

Direction = Literal["up", "down", "none"]

COUNTED = "forget_rate_counted"  # p among many samples, of one seed
SEQUENTIAL = "sequential_"  # prefix of what the model measures that forgot all subjects in sequence
PROMPT_SETS = {
    "training_prompts": "training prompts",
    "new_attributes": "new attributes",
    "new_templates": "new templates",
    "synonyms": "synonyms",
    "compositions": "compositions",
    "anchor": "anchor",
    "near": "near",
    "far": "far",
    "other_domain": "other domain",
    "null_prompt": "null prompt",
    "free_wording": "free wording",
}
NETWORKS = {
    "judge": "judge",
    "inception": "Inception",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "ssim": "SSIM",
    "sscd": "SSCD",
    "lpips_alex": "LPIPS",
}
ATTACKS = {"relearn": "Relearning", "prompt_tuning": "Prompt tuning"}
VERSIONS = {"modified": "modified prompt", "original": "original prompt"}
PLACEHOLDERS = {"prompts": PROMPT_SETS, "network": NETWORKS, "attack": ATTACKS, "version": VERSIONS}
STEP = r"\d+"


@dataclass(frozen=True)
class Entry:
    """A metric, or with placeholders in `name` and `label` several of them.

    unit: of the stored number; a "fraction" is shown in %. kept: says how well a model keeps what it should keep, and
    so is not shown of a row that did not forget. range: what an interval never leaves.
    """

    name: str
    label: str
    unit: str = ""
    direction: Direction = "none"
    digits: int = 2
    kept: bool = False
    range: "Name" = "any"

    @property
    def scale(self) -> float:
        """What the stored number is multiplied by to be shown."""
        return 100.0 if self.unit == "fraction" else 1.0

    @property
    def shown_unit(self) -> str:
        return "%" if self.unit == "fraction" else self.unit

    @property
    def title(self) -> str:
        """The label with its unit, as an axis names it."""
        return f"{self.label} ({self.shown_unit})" if self.shown_unit else self.label


@dataclass(frozen=True)
class Kind:
    """The metrics of a kind of tasks. main: names in the order of the main table; fronts: (across, up) of plots."""

    entries: tuple[Entry, ...]
    main: tuple[str, ...]
    fronts: tuple[tuple[str, str], ...] = ()


def share(name: str, label: str, direction: Direction, digits: int = 1, kept: bool = False) -> Entry:
    return Entry(name, label, "fraction", direction, digits, kept, range="share")


COST = (
    Entry("nfe_forward", "NFE, forward", direction="down", digits=0, range="positive"),
    Entry("nfe_backward", "NFE, backward", direction="down", digits=0, range="positive"),
    Entry("nfe_forward_per_sample", "NFE per sample, forward", direction="down", range="positive"),
    Entry("nfe_backward_per_sample", "NFE per sample, backward", direction="down", range="positive"),
    Entry("cost_per_sample", "Cost per sample", "F", "down", range="positive"),
)
COPIES = (
    share("copy_rate_forget", "Copies of the forget images", "down", 2),
    share("copy_rate", "Copies of any training image", "down", 2),
    share("copy_rate_held", "Held-out images flagged", "none", 2),
)
IMAGES = Kind(
    entries=(
        Entry("inception_score_{network}", "Inception score ({network})", direction="up", range="positive"),
        Entry("nll_forget", "NLL of the forget image", "bits/dim", "up"),
        Entry("nll_held", "NLL of held-out images", "bits/dim", "down"),
        Entry("eps_error_forget", "ε-error on the forget image", "squared error per pixel", "up", 3, range="positive"),
        Entry("eps_error_held", "ε-error on held-out images", "squared error per pixel", "down", 3, range="positive"),
        share("forget_rate", "Forget rate p", "down", 2),
        share(COUNTED, "Forget rate p, many samples", "down", 3),
        Entry("kid_{network}", "KID ({network})", direction="down", digits=3),
        Entry("fid_{network}", "FID ({network})", direction="down", range="positive"),
        share("precision_{network}", "Precision ({network})", "up"),
        share("recall_{network}", "Recall ({network})", "up"),
        Entry("denoise_similarity_ssim", "Denoise similarity (SSIM)", direction="down", range="cosine"),
        Entry("denoise_similarity_{network}", "Denoise similarity ({network})", "cosine", "down", range="cosine"),
        Entry("integrity_{network}", "Integrity ({network})", direction="up", range="at most 1"),
        Entry("drift_{network}", "Drift from the base ({network})", "distance", "down", 3, range="positive"),
        Entry("oracle_similarity_{network}", "Similarity to oracle ({network})", direction="up", range="at most 1"),
        Entry("oracle_drift_{network}", "Distance to oracle ({network})", "distance", "down", 3, range="positive"),
        *COPIES,
        *COST,
    ),
    main=(
        "inception_score_judge",
        "nll_forget",
        "eps_error_forget",
        COUNTED,
        "kid_judge",
        "denoise_similarity_ssim",
        "integrity_judge",
        "oracle_similarity_judge",
    ),
    fronts=(("nll_forget", "inception_score_judge"), ("eps_error_forget", "inception_score_judge")),
)
CONCEPT = Kind(
    entries=(
        share("ua_{prompts}", "UA, {prompts}", "up"),
        share("ua_{prompts}_second", "UA by the second judge, {prompts}", "up"),
        share("judges_agree_{prompts}", "Judges agree, {prompts}", "none"),
        Entry("ua_gap", "UA gap, training prompts to new ones", "fraction", "down", 1, range="cosine"),
        Entry("target_probability", "Probability of the target", direction="down", digits=3, range="share"),
        Entry("target_entropy", "Entropy under training prompts", "nats", "up", range="positive"),
        share("accuracy_{prompts}", "Accuracy, {prompts}", "up", kept=True),
        share("alignment_{prompts}", "Alignment, {prompts}", "up", kept=True),
        Entry(
            "integrity_{prompts}_{network}",
            "Integrity, {prompts} ({network})",
            direction="up",
            kept=True,
            range="at most 1",
        ),
        Entry("drift_{prompts}_{network}", "Drift, {prompts} ({network})", "distance", "down", 3, range="positive"),
        Entry(
            "oracle_drift_{prompts}_{network}",
            "Distance to oracle, {prompts} ({network})",
            "distance",
            "down",
            3,
            range="positive",
        ),
        Entry("kid_{prompts}_{network}", "KID, {prompts} ({network})", direction="down", digits=3, kept=True),
        Entry("fid_kept_{network}", "FID of what is kept ({network})", direction="down", kept=True, range="positive"),
        Entry(
            "fid_kept_real_{network}",
            "FID of what is kept to real pictures ({network})",
            direction="down",
            kept=True,
            range="positive",
        ),
        Entry(
            "kid_kept_real_{network}", "KID of what is kept to real pictures ({network})", direction="down", kept=True
        ),
        share("precision_kept_{network}", "Precision of what is kept ({network})", "up", kept=True),
        share("recall_kept_{network}", "Recall of what is kept ({network})", "up", kept=True),
        share("target_{attack}_{step}", "{attack}, {step} steps", "down"),
        Entry("{attack}_steps", "{attack}: half of the target back after", "steps", "up", 0, range="positive"),
        *COST,
    ),
    main=(
        "ua_training_prompts",
        "ua_new_attributes",
        "ua_new_templates",
        "ua_synonyms",
        "ua_compositions",
        "ua_gap",
        "accuracy_anchor",
        "accuracy_near",
        "accuracy_far",
        "accuracy_other_domain",
        "integrity_near_judge",
        "integrity_far_judge",
        "fid_kept_judge",
    ),
    fronts=(("ua_training_prompts", "accuracy_near"), ("ua_training_prompts", "integrity_near_judge")),
)
PROMPTS = Kind(
    entries=(
        share("success_{version}", "Success, {version}", "up"),
        share("memorized_{version}", "Memorized, {version}", "down"),
        share("copies_{version}", "Pixel copies, {version}", "down"),
        share("sscd_copies_{version}", "Copies (SSCD), {version}", "down"),
        share("realism_{version}_{network}", "Realism, {version} ({network})", "up"),
        Entry("clip_iqa_{version}", "CLIP-IQA, {version}", direction="up", digits=3, range="share"),
        Entry("noise_norm_{version}", "Noise norm, {version}", direction="down", range="positive"),
        Entry(
            "integrity_ordinary_{network}", "Integrity, ordinary prompts ({network})", direction="up", range="at most 1"
        ),
        share("copies_others", "Pixel copies, other memorized prompts", "none"),
        share("sscd_copies_others", "Copies (SSCD), other prompts of the task", "none"),
        *COST,
    ),
    main=(
        "success_modified",
        "success_original",
        "memorized_modified",
        "memorized_original",
        "copies_modified",
        "copies_original",
        "sscd_copies_modified",
        "sscd_copies_original",
        "realism_modified_judge",
        "realism_original_judge",
        "noise_norm_original",
        "integrity_ordinary_judge",
        "copies_others",
        "sscd_copies_others",
        SEQUENTIAL + "memorized_original",
        SEQUENTIAL + "integrity_ordinary_judge",
    ),
)
KINDS = {"images": IMAGES, "concept": CONCEPT, "prompts": PROMPTS}


def lookup(name: str) -> Entry:
    """The entry of one metric, placeholders filled in; UserError for a name that is not registered."""
    entry = _match(name)
    if entry is None and name.startswith(SEQUENTIAL):
        entry = _match_sequential(name)
    if entry is None:
        raise UserError(f"the metric {name!r} is not registered in palinode/metrics/registry.py")
    return entry


def columns(kind: str) -> tuple[Entry, ...]:
    """The main table of a kind, whose names are also its headline in `results/metrics.json`."""
    return tuple(lookup(name) for name in KINDS[kind].main)


def headline(kind: str) -> tuple[str, ...]:
    return KINDS[kind].main


@functools.cache
def _match(name: str) -> Entry | None:
    for entry, pattern in _patterns():
        match = pattern.fullmatch(name)
        if match:
            words = {key: PLACEHOLDERS.get(key, {}).get(value, value) for key, value in match.groupdict().items()}
            return replace(entry, name=name, label=entry.label.format(**words))
    return None


def _match_sequential(name: str) -> Entry | None:
    entry = _match(name.removeprefix(SEQUENTIAL))
    return entry and replace(entry, name=name, label=f"Sequential: {entry.label}")


@functools.cache
def _patterns() -> list[tuple[Entry, re.Pattern[str]]]:
    """Each entry once, with the names it stands for."""
    entries = dict.fromkeys(entry for kind in KINDS.values() for entry in kind.entries)
    values = {key: "|".join(words) for key, words in PLACEHOLDERS.items()} | {"step": STEP}
    groups = {key: f"(?P<{key}>{alternatives})" for key, alternatives in values.items()}
    return [(entry, re.compile(entry.name.format(**groups))) for entry in entries]
