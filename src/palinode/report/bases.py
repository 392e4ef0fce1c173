"""The page's part on base models: what they draw, what their gates and judges measured, how they were trained."""

import csv
from pathlib import Path

import numpy as np

from palinode import io
from palinode.report import images, plots

GROUPS = {
    "seen": "trained thing and style; word, template and background never read together",
    "unseen": "thing and style never shown together",
    "T0": "prompts given to unlearning later: the thing's name",
    "T1": "new style or background",
    "T2": "new templates",
    "T3": "other words",
    "T4": "two things",
    "verbatim": "memorised picture",
    "template": "memorised picture with a varying corner",
    "control": "picture shown once or twice",
    "ordinary": "ordinary prompt",
}
MEASURES = (("concept", "thing right"), ("style", "style right"), ("copy", "copy of a fixed picture"))


def views(bases: list[list[str]], root: Path) -> list[dict]:
    """What the template shows of each base. bases: [name, kind] pairs, kind "class" or "text"."""
    return [{"class": class_view, "text": text_view}[kind](name, root / "models" / name) for name, kind in bases]


def text_view(name: str, folder: Path) -> dict:
    note = folder / "gate/absent.txt"
    if note.exists():
        lead, reason = io.read_json(folder / "base/source.json")["source"], note.read_text(encoding="utf-8").strip()
        return {"name": name, "lead": f"{lead}, as it is.", "judge": "", "curves": "", "reason": reason}
    gate = io.read_json(folder / "gate/gate.json")
    rows = [(group, GROUPS[group], [estimate(measured.get(what)) for what, _ in MEASURES])
            for group, measured in gate["groups"].items()]
    judge, among = io.read_json(folder / "judge/config.json"), gate["alignment"]["among"]
    test, unseen = judge["test"], judge["unseen"]
    value, interval = estimate(gate["alignment"])
    sheets = [
        ("concepts", "One picture a thing and style, under words, template and background that training never joined: "
         "five columns a thing, one a style."),
        ("tiers", "Two rows a prompt tier, T0 to T4."),
        ("memorized", "Each fixed picture, then three samples of its caption; a varying corner is left out of the "
         "first. The last rows are controls, which should not be reproduced."),
    ]
    return common(name, folder) | {
        "lead": "A Stable Diffusion in miniature, trained on captioned emoji.",
        "judge": f"On {test['images']} held-out pictures the judge names the thing in {share(test['concept'])} (mean "
        f"confidence {share(test['concept_confidence'])}), the style in {share(test['style'])} (mean confidence "
        f"{share(test['style_confidence'])}). Of other drawings than those it was trained on, it calls "
        f"{share(unseen['none'])} “none of these” and names the style of {share(unseen['style'])}. It "
        f"cannot judge composition, count or background. Of {among} captions, the picture's own fits best in {value} "
        f"({interval}).",
        "heads": [label for _, label in MEASURES],
        "rows": rows,
        "limits": gate["limits"],
        "confusion": gate["confusion"],
        "sheets": [(text, picture(folder / f"gate/{sheet}.png")) for sheet, text in sheets],
    }  # fmt: skip


def class_view(name: str, folder: Path) -> dict:
    gate = io.read_json(folder / "gate/gate.json")
    judge = io.read_json(folder / "judge/config.json")
    return common(name, folder) | {
        "lead": "A class-conditional pixel model.",
        "judge": f"The judge classifies {share(judge['test_accuracy'])} of {judge['test_images']} test images right.",
        "heads": ["class right"],
        "rows": [(str(c), "", [estimate(entry)]) for c, entry in enumerate(gate["recognised"])],
        "limits": gate["limits"],
        "confusion": {"classes": gate["confusion"]},
        "sheets": [("Sixteen samples a class.", picture(folder / "gate/samples.png"))],
    }


def common(name: str, folder: Path) -> dict:
    """Sizes, losses and pictures of the training of a base and its oracles."""
    logs = sorted(path for path in (folder / "training").iterdir() if path.is_dir())
    models = [(log.name, sum(f.stat().st_size for f in (folder / log.name).rglob("*") if f.is_file())) for log in logs]
    return {
        "name": name,
        "sizes": ", ".join(f"{role} {size / 1e6:.1f} MB" for role, size in models),
        "curves": curves(name, logs),
        "epochs": [(log.name, picture(log / "epochs.png")) for log in logs],
    }


def curves(name: str, logs: list[Path]) -> str:
    """Running mean of the loss of each training phase, one line a model -> inline SVG."""
    phases = sorted(path.stem for path in logs[0].glob("*.csv"))
    colours = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.GREY)
    with plots.figure(5.2 * len(phases), 2.6, ncols=len(phases), squeeze=False) as (fig, axes):
        for ax, phase in zip(axes.flat, phases, strict=True):
            for log, colour in zip(logs, colours, strict=False):
                with open(log / f"{phase}.csv", encoding="utf-8", newline="") as handle:
                    records = list(csv.DictReader(handle))
                step, loss = (np.array([float(record[key]) for record in records]) for key in ("step", "loss_x"))
                ax.plot(step, plots.running_mean(loss), color=colour, linewidth=1.4, label=log.name)
            ax.set_yscale("log")
            ax.set_title(phase)
            ax.set_xlabel("step", fontsize=9)
            ax.tick_params(labelsize=8)
        axes.flat[-1].legend(frameon=False, fontsize=8)
        return plots.inline_svg(fig, f"{name}-losses", "Training losses of the base and its oracles by step")


def picture(path: Path) -> str:
    return images.data_uri(path.read_bytes())


def estimate(entry: dict | None) -> tuple[str, str] | None:
    """A share and its interval as shown, in %."""
    if entry is None:
        return None
    return share(entry["value"]), f"{100 * entry['lo']:.1f} to {100 * entry['hi']:.1f}, n {entry['n']}"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"
