"""The page's part on base models: what they draw, what their checks and judges measured, how they were trained.

An oracle is a base of its own, called <base>-without-<what>; it is shown with its base.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from palinode.core import io
from palinode.core.estimate import share
from palinode.metrics import registry
from palinode.params.report_settings import ReportBase
from palinode.report import figures, pictures

WITHOUT = "-without-"  # in the name of an oracle, after that of its base
GROUPS = {
    "seen": "trained thing and style; word, template and background never read together",
    "unseen": "thing and style never shown together",
    "training prompts": "prompts as unlearning later reads them: the thing's name",
    "new attributes": "new style or background",
    "new templates": "new sentences",
    "synonyms": "other words for the thing",
    "compositions": "two things",
    "verbatim": "memorized picture",
    "template": "memorized picture with a varying corner",
    "partial": "picture that comes with its caption in three of five cases",
    "control": "picture shown once or twice",
    "ordinary": "ordinary prompt",
}
MEASURES = (("concept", "thing right"), ("style", "style right"), ("copy", "copy of a fixed picture"))
TEXT_SHEETS = {
    "concepts": "One picture a thing and style, under words, template and background that training never joined: "
    "five columns a thing, one a style.",
    "prompt-sets": "Two rows a prompt set, from training prompts to compositions.",
    "memorized": "Each fixed picture, then three samples of its caption; a varying corner is left out of the "
    "first. The last rows are control prompts, which should not be reproduced.",
}
CLASS_SHEETS = {"samples": "Sixteen samples a class."}
Shown = tuple[str, str]  # a value and its interval


def views(bases: list[ReportBase], root: Path) -> list[dict[str, Any]]:
    """What the template shows of each base."""
    return [view(base, folders) for base, folders in group_oracles(bases, root / "models")]


def group_oracles(bases: list[ReportBase], models: Path) -> list[tuple[ReportBase, list[Path]]]:
    """Each base with its own folder and those of its oracles; an oracle whose base is not listed is by itself."""
    names = {base.name for base in bases}
    owners = {name: name.partition(WITHOUT)[0] for name in names}
    groups = []
    for base in bases:
        if owners[base.name] != base.name and owners[base.name] in names:
            continue
        oracles = [other.name for other in bases if other.name != base.name and owners[other.name] == base.name]
        groups.append((base, [models / name for name in (base.name, *oracles)]))
    return groups


def view(base: ReportBase, folders: list[Path]) -> dict[str, Any]:
    folder = folders[0]
    common = {
        "name": base.name,
        "sizes": ", ".join(f"{path.name} {count_megabytes(path / 'model'):.1f} MB" for path in folders),
        "curves": draw_losses(base.name, folders),
        "epochs": list_epochs(folders),
    }
    reason = find_absence(folder)
    if reason:
        source = folder / "model/source.json"
        lead = f"{io.read_json(source)['source']}, as it is." if source.exists() else ""
        return common | {"lead": lead, "judge": "", "reason": reason}
    return common | VIEWS[base.kind](folder)


def find_absence(folder: Path) -> str:
    """Why a base was not checked; empty if it was."""
    if (folder / "gate/gate.json").exists():
        return ""
    return io.absence(folder / "gate") or "an oracle is not checked by itself"


def view_unconditional(folder: Path) -> dict[str, Any]:
    gate = io.read_json(folder / "gate/gate.json")
    label = registry.lookup("fid_judge").label
    fid = f"{label} to the reference {gate['fid_judge']:.3g}, of real images {gate['fid_judge_real']:.3g}."
    score = ""
    if gate["inception_score"] is not None:
        score = f"Inception Score {gate['inception_score']:.3g}, of real images {gate['inception_score_real']:.3g}."
    hits = share(gate["hits"], gate["samples"])
    return {
        "lead": "A pixel model without conditions.",
        "judge": f"{describe_judge(folder)} {fid} {score}".strip(),
        "heads": ["share of samples"],
        "rows": [("repeated images", "what it should have memorized", [show_share(hits)])],
        "limits": gate["limits"],
        "confusion": {},
        "sheets": [],
    }


def view_class(folder: Path) -> dict[str, Any]:
    gate = io.read_json(folder / "gate/gate.json")
    return {
        "lead": "A class-conditional pixel model.",
        "judge": describe_judge(folder),
        "heads": ["class right"],
        "rows": [(str(label), "", [show_share(entry)]) for label, entry in enumerate(gate["recognised"])],
        "limits": gate["limits"],
        "confusion": {"classes": gate["confusion"]},
        "sheets": list_sheets(folder / "gate", CLASS_SHEETS),
    }


def view_variety(gate: dict[str, Any]) -> list[tuple[str, str, list[Shown | None]]]:
    """Lines of a base whose captions leave things open, under MEASURES."""
    if "variety" not in gate:
        return []
    varied = ("two noises, ordinary prompt", "how far apart, in % of two real pictures that fit it")
    edited = ("edits", "edits of memorized captions that give copies in part")
    return [(*varied, [show_share(gate["variety"]), None, None]), (*edited, [None, None, show_share(gate["edits"])])]


def view_text(folder: Path) -> dict[str, Any]:
    gate = io.read_json(folder / "gate/gate.json")
    rows = [
        (group, GROUPS[group], [show_share(measured.get(what)) for what, _ in MEASURES])
        for group, measured in gate["groups"].items()
    ]
    alignment = gate["alignment"]
    interval = f"{100 * alignment['lo']:.1f} to {100 * alignment['hi']:.1f}, n {alignment['n']}"
    best = f"{percent(alignment['value'])} ({interval})"
    fits = f"Of {alignment['among']} captions, the picture's own fits best in {best}."
    return {
        "lead": "A Stable Diffusion in miniature, trained on captioned emoji.",
        "judge": f"{describe_scene_judge(folder)} {fits}",
        "heads": [label for _, label in MEASURES],
        "rows": rows + view_variety(gate),
        "limits": gate["limits"],
        "confusion": gate["confusion"],
        "sheets": list_sheets(folder / "gate", TEXT_SHEETS),
    }


VIEWS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "unconditional": view_unconditional,
    "class": view_class,
    "text": view_text,
}


def describe_judge(folder: Path) -> str:
    """How well the judge of digits classifies; empty if the base has none."""
    if io.absence(folder / "judge"):
        return ""
    judge = io.read_json(folder / "judge/config.json")
    return f"The judge classifies {percent(judge['test_accuracy'])} of {judge['test_images']} test images right."


def describe_scene_judge(folder: Path) -> str:
    judge = io.read_json(folder / "judge/config.json")
    test = judge["test"]
    unseen = judge["unseen"]
    return (
        f"On {test['images']} held-out pictures the judge names the thing in {percent(test['concept'])} (mean "
        f"confidence {percent(test['concept_confidence'])}), the style in {percent(test['style'])} (mean confidence "
        f"{percent(test['style_confidence'])}). Of other drawings than those it was trained on, it calls "
        f"{percent(unseen['none'])} “none of these” and names the style of {percent(unseen['style'])}. It cannot "
        "judge composition, count or background."
    )


def list_sheets(folder: Path, texts: dict[str, str]) -> list[tuple[str, str]]:
    """(text, picture) of the sheets that the check kept."""
    sheets = [(text, pictures.read_sheet(folder, stem)) for stem, text in texts.items()]
    return [(text, sheet) for text, sheet in sheets if sheet]


def count_megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def list_epochs(folders: list[Path]) -> list[tuple[str, str]]:
    """(model, its pictures while it was trained) of those that kept some."""
    sheets = [(folder.name, pictures.read_sheet(folder / "training", "epochs")) for folder in folders]
    return [(name, sheet) for name, sheet in sheets if sheet]


def draw_losses(name: str, folders: list[Path]) -> str:
    """Running mean of the loss of each training phase, one line a model -> inline SVG; empty if nothing is logged."""
    phases = sorted({path.stem for folder in folders for path in (folder / "training").glob("*.csv")})
    if not phases:
        return ""
    with figures.figure(5.2 * len(phases), 2.6, ncols=len(phases), squeeze=False) as (fig, axes):
        for ax, phase in zip(axes.flat, phases, strict=True):
            for i, folder in enumerate(folders):
                draw_phase(ax, folder / "training" / f"{phase}.csv", folder.name, figures.COLOURS[i % 8])
            ax.set_yscale("log")
            ax.set_title(phase)
            ax.set_xlabel("step", fontsize=9)
            ax.tick_params(labelsize=8)
        axes.flat[-1].legend(frameon=False, fontsize=8)
        return figures.inline_svg(fig, f"{name}-losses", "Training losses of the base and its oracles by step")


def draw_phase(ax: Any, path: Path, label: str, colour: str) -> None:
    """The one loss of a phase; nothing of a model that had no such phase."""
    if not path.exists():
        return
    records = io.read_csv(path)
    column = next(name for name in records[0] if name.startswith("loss"))
    steps = [float(record["step"]) for record in records]
    losses = np.array([float(record[column]) for record in records])
    ax.plot(steps, figures.running_mean(losses), color=colour, linewidth=1.4, label=label)


def show_share(entry: dict | None) -> Shown | None:
    """A share and its interval as shown, in %."""
    if entry is None:
        return None
    return percent(entry["value"]), f"{100 * entry['lo']:.1f} to {100 * entry['hi']:.1f}, n {entry['n']}"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"
