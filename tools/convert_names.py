"""Old names of metrics, kinds, rows and attacks, and the new ones; files of old runs under new names.

    python tools/convert_names.py diff OLD_REVISION [NEW_REVISION]   # results/metrics.json metric by metric
    python tools/convert_names.py run FOLDER ...                     # published runs, in place
    python tools/convert_names.py strengths FILE ...                 # comparisons of make strengths, in place

`diff` compares a commit, branch or tag with the working tree, or with a second revision, as `dvc metrics diff` does.
Either may be older than the new names. `run` and `strengths` leave files that have the new names as they are.
"""

import json
import re
import subprocess
from pathlib import Path

from palinode.core import io
from palinode.core.errors import UserError
from palinode.metrics import registry
from palinode.pipeline.stage import run_tool
from palinode.report import records
from palinode.report.collect import ALL

KINDS = {"data": "images"}
ROWS = {"other": "other-seed"}
ATTACKS = {"prefix": "prompt-tuning"}
METRICS = {"forward_passes": "nfe_forward", "backward_passes": "nfe_backward", "prefix_steps": "prompt_tuning_steps"}
METRICS |= {"forwards_per_sample": "nfe_forward_per_sample", "backwards_per_sample": "nfe_backward_per_sample"}
PREFIXES = {  # how a metric's name begins
    "in_turn_": "sequential_",
    "memorised_": "memorized_",
    "right_": "accuracy_",
    "change_": "drift_",
    "oracle_change_": "oracle_drift_",
    "target_prefix_": "target_prompt_tuning_",
}
PARTS = {  # between underscores in a metric's name
    "t0": "training_prompts",
    "t1": "new_attributes",
    "t2": "new_templates",
    "t3": "synonyms",
    "t4": "compositions",
    "empty": "null_prompt",
}
WORDS = {  # in the sentences of claims.json
    "memorised_in_turn": "sequential_memorized",
    "memorised": "memorized",
    "memorisation": "memorization",
}
PATH = "results/metrics.json"
METRICS_CSV = "metrics.csv"


def convert_metric(name: str) -> str:
    """The new name of a metric; a new name stays."""
    if name in METRICS:
        return METRICS[name]
    for old, new in PREFIXES.items():
        if name.startswith(old):
            return new + convert_metric(name.removeprefix(old))
    return re.sub(r"(?<![a-z0-9])(t[0-4]|empty)(?![a-z0-9])", lambda match: PARTS[match[1]], name)


def convert_headline(metrics: dict) -> dict[str, dict[str, dict[str, float]]]:
    """results/metrics.json {task: {row: {metric: value}}} under new names."""
    return {
        task: {ROWS.get(row, row): convert_keys(values) for row, values in rows.items()}
        for task, rows in metrics.items()
    }


def convert_keys(values: dict) -> dict:
    return {convert_metric(name): value for name, value in values.items()}


def convert_record(record: dict[str, str]) -> dict[str, object]:
    """One line of an old metrics.csv (family, task, method, seed, ...) with the new columns.

    Old runs had one subject, number 0, but for prompts: these were pooled.
    """
    entry = registry.lookup(convert_metric(record["metric"]))
    kind = KINDS.get(record["family"], record["family"])
    pooled = kind == "prompts" or record["seed"] == ALL
    changed = {
        "kind": kind,
        "subject": ALL if pooled else "0",
        "row": ROWS.get(record["method"], record["method"]),
        "metric": entry.name,
        "unit": entry.unit,
        "direction": entry.direction,
    }
    return {field: (record | changed)[field] for field in records.FIELDS}


def convert_words(text: str) -> str:
    return re.sub("|".join(WORDS), lambda match: WORDS[match[0]], text)


def convert_run(folder: Path) -> None:
    """Bring the metrics.csv and claims.json of a published run to the new names, unless they have them."""
    lines = io.read_csv(folder / METRICS_CSV)
    if "family" not in lines[0]:
        return
    claims = [
        claim | {key: convert_words(claim[key]) for key in ("statement", "reason")}
        for claim in json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    ]
    io.write_csv(folder / METRICS_CSV, [convert_record(line) for line in lines], records.FIELDS)
    io.write_json(folder / "claims.json", claims)


def convert_strengths(path: Path) -> None:
    """The same of a file of results/strengths."""
    comparison = io.read_json(path)
    comparison["points"] = [convert_keys(entry) for entry in comparison["points"]]
    if "matched" in comparison:
        matched = [convert_keys(entry) for entry in comparison.pop("matched")]
        part = {"question": "forgetting", "level": comparison.pop("level"), "matched": matched}
        comparison = {"kind": "concept", **comparison, "comparisons": [part]}
    io.write_json(path, comparison)


def read_metrics(revision: str | None) -> dict[str, dict[str, dict[str, float]]]:
    """results/metrics.json of a revision, or of the working tree, under new names. UserError when there is none."""
    if revision is None:
        return convert_headline(io.read_json(Path(PATH)))
    command = ["git", "show", f"{revision}:{PATH}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{revision}: {(done.stderr.strip().splitlines() or ['git failed'])[-1]}")
    return convert_headline(json.loads(done.stdout))


def list_differences(old: dict, new: dict) -> list[tuple[str, str, str, float | None, float | None]]:
    """(task, row, metric, old value, new value) of everything that differs; None where a side has it not."""
    before = flatten(old)
    after = flatten(new)
    keys = dict.fromkeys([*before, *after])
    return [(*key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def flatten(metrics: dict) -> dict[tuple[str, str, str], float]:
    return {
        (task, row, name): value
        for task, rows in metrics.items()
        for row, values in rows.items()
        for name, value in values.items()
    }


def print_differences(old: dict, new: dict) -> None:
    """A table metric by metric, and how many are equal."""
    differences = list_differences(old, new)
    lines = [("task", "row", "metric", "old", "new", "difference")]
    for task, row, name, before, after in differences:
        change = "" if before is None or after is None else f"{after - before:+.6g}"
        lines.append((task, row, name, show(before), show(after), change))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines if differences else []:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    total = sum(len(values) for rows in new.values() for values in rows.values())
    present = sum(after is not None for *_, after in differences)
    print(f"{total - present} of {total} numbers are equal")


def show(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def run(*arguments: str) -> None:
    command, *names = arguments or ("",)
    if command == "diff" and len(names) in (1, 2):
        print_differences(read_metrics(names[0]), read_metrics(names[1] if len(names) > 1 else None))
    elif command == "run" and names:
        for name in names:
            convert_run(Path(name))
    elif command == "strengths" and names:
        for name in names:
            convert_strengths(Path(name))
    else:
        raise UserError("arguments: diff OLD [NEW], run FOLDER ..., or strengths FILE ...")


if __name__ == "__main__":
    run_tool(run)
