"""Published runs: finished runs, or some tasks of them, kept in git with their tables.

Each is a folder of `results/published/`:

    metrics.csv       as `results/metrics.csv`, its tasks alone: a record for each seed, and one with seed `all`
    claims.json       [{"id", "statement", "table", "task", "verdict", "share", "published", "reason"}]
    params.yaml       the parameters of the run
    environment.json  as `results/environment.json`
    timings.json      {what: seconds}, written by hand; may be absent
    COMMIT            the commit of the code that ran
    README.md         all of it as tables, written by `make readme`

`make readme ARGS='--publish NAME TASK ...'` copies those tasks of the run in the working tree to
`results/published/NAME` (all but timings.json).
"""

import csv
import subprocess
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import yaml

from palinode import io, settings
from palinode.errors import UserError
from palinode.report import claims, collect, robustness, tables
from palinode.report.collect import Cell, Row, Task
from palinode.report.page import share

PUBLISHED = Path("results/published")


def publish(name: str, tasks: list[str], root: Path = Path(".")) -> None:
    """Copy tasks of the finished run in `root` to results/published/<name>. UserError when its code was not committed,
    or it has no such task."""
    folder, environment = root / PUBLISHED / name, io.read_json(root / "results/environment.json")
    if environment["commit"] is None:
        raise UserError("results/environment.json names no commit: run the report stage in a git checkout")
    ran = ["src", "stages", "dvc.yaml"]
    if subprocess.run(["git", "diff", "--quiet", environment["commit"], "--", *ran], cwd=root).returncode:
        raise UserError(f"the code is not that of commit {environment['commit'][:12]}: commit it and run again")
    chosen = io.read_json(root / settings.path("report"))["settings"]
    if unknown := set(tasks) - chosen["tasks"].keys():
        raise UserError(f"the run has no task {', '.join(sorted(unknown))}")
    chosen["tasks"] = {task: rows for task, rows in chosen["tasks"].items() if task in tasks}
    collected = collect.collect(chosen, root)
    outcomes = claims.evaluate(collected, root / "reference")
    io.write_text(folder / "metrics.csv", collect.to_csv(collect.FIELDS, collect.tidy(collected)))
    for source in ("results/environment.json", "params.yaml"):
        io.write_text(folder / Path(source).name, (root / source).read_text(encoding="utf-8"))
    io.write_json(folder / "claims.json", [outcome(result) for result in outcomes])
    io.write_text(folder / "COMMIT", environment["commit"] + "\n")


def outcome(result: claims.Result) -> dict:
    """One entry of claims.json; `published` is the truth of the claim on the table's own numbers, or null."""
    claim = result.claim
    return {"id": claim["id"], "statement": claim["statement"], "table": result.table["id"], "task": result.task,
            "verdict": result.verdict, "share": result.share, "published": claim["holds_on_rows"],
            "reason": result.reason}  # fmt: skip


def runs(root: Path = Path(".")) -> list[Path]:
    """The folders of the published runs, by family and name. UserError when there is none."""
    families = [*tables.MAIN]

    def order(folder: Path) -> tuple[int, str]:
        first = next(csv.DictReader(read(folder / "metrics.csv").splitlines()))
        return families.index(first["family"]), folder.name

    found = sorted((path for path in (root / PUBLISHED).glob("*") if path.is_dir()), key=order)
    if not found:
        raise UserError(f"{PUBLISHED} holds no run: `make readme ARGS='--publish NAME TASK'` publishes a finished one")
    return found


def page(folder: Path, root: Path = Path(".")) -> str:
    """A run's own page: where it comes from, its tables, claims and times."""
    (given, mapping), run = papers(root), Run.read(folder)
    parts = [f"# Run `{folder.name}`",
             f"Commit `{run.commit}`, seeds {run.seeds}; {run.machine}, {run.libraries}. Parameters: "
             "[params.yaml](params.yaml); every metric of every row and seed: [metrics.csv](metrics.csv). Written by "
             "`make readme`.",
             "Each cell: value [95 % interval] · *the paper's number*; intervals over seeds (Student t; for rates at "
             "least Wilson's for one seed's pictures, since all seeds draw from the same noise) where there are "
             "several, else over samples."]  # fmt: skip
    for task in run.tasks:
        parts += [f"## Task `{task.name}`", tables.markdown(tables.main_table(task, given, mapping))]
        if robustness.judged(task):
            parts += ["Under attack: share of pictures for T0 prompts in which the judge sees the target, and the "
                      "first of the steps looked at with half of them. At step 0 a prefix is random words.",
                      tables.markdown(robustness.table(task, mapping))]  # fmt: skip
        costs = tables.cost_table(task, given, mapping)
        parts += [tables.markdown(costs)] if costs.columns else []
    parts += ["## Claims", verdicts(io.read_json(folder / "claims.json")), "## Times", cost(folder / "timings.json")]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def papers(root: Path) -> tuple[dict[str, dict], dict]:
    """The papers' tables by id, and the mapping of our names to theirs."""
    folder = root / "reference"
    return {table["id"]: table for table in claims.read_tables(folder)}, claims.read_mapping(folder)


@dataclass(frozen=True)
class Run:
    """A published run: its tasks, and what made it as text."""

    tasks: list[Task]
    seeds: str
    commit: str
    machine: str
    libraries: str

    @classmethod
    def read(cls, folder: Path) -> "Run":
        chosen = yaml.safe_load(read(folder / "params.yaml"))
        environment = io.read_json(folder / "environment.json")
        threads = environment["threads"]
        versions = [f"{name} {environment['libraries'][name]}" for name in ("torch", "diffusers", "dvc")]
        return cls(
            tasks=read_tasks(folder, chosen),
            seeds=", ".join(map(str, chosen["seeds"])),
            commit=read(folder / "COMMIT").strip()[:12],
            machine=f"{environment['cuda'] or environment['cpu']}, {threads} thread{'s' * (threads > 1)}",
            libraries=", ".join([f"Python {environment['python']}", *versions]),
        )


def read_tasks(folder: Path, chosen: dict) -> list[Task]:
    """The `all` records of metrics.csv as tasks whose rows have one cell each. chosen: params.yaml."""
    found: dict[tuple[str, str], dict[str, dict[str, dict]]] = {}
    for record in csv.DictReader(read(folder / "metrics.csv").splitlines()):
        if record["seed"] == "all":
            rows = found.setdefault((record["family"], record["task"]), {})
            rows.setdefault(record["method"], {})[record["metric"]] = entry(record)
    return [Task(name, family, chosen["seeds"], [_row(row, metrics, chosen) for row, metrics in rows.items()], folder)
            for (family, name), rows in found.items()]  # fmt: skip


def _row(name: str, metrics: dict[str, dict], chosen: dict) -> Row:
    settings = {"paper": chosen["rows"][name].get("paper")} if name in chosen["rows"] else {}
    return Row(name, [Cell(0, PUBLISHED, metrics)], settings)


def entry(record: dict[str, str]) -> dict:
    """A record of metrics.csv as an entry of a cell's metrics.json."""
    value, lo, hi = (float(record[name]) if record[name] else None for name in ("value", "lo", "hi"))
    return {"value": value, "lo": lo, "hi": hi, "n": int(record["n"]), "interval": record["interval"],
            "direction": "none", "reason": record["reason"]}  # fmt: skip


def verdicts(entries: list[dict]) -> str:
    """How many claims ended how, and those that could be tested."""
    counts = Counter(item["verdict"] for item in entries)
    totals = ", ".join(f"{counts[verdict]} {verdict}" for verdict in claims.VERDICTS)
    lines = [
        f"{totals}. Share = of the paired bootstrap replicates in which the claim is true (at least 95 %:",
        "holds, at most 5 %: fails). Why the others are untested stands in [claims.json](claims.json).",
        "", "| claim | source | published numbers | here | share |", "|---|---|---|---|---:|",
    ]  # fmt: skip
    truth = {True: "true", False: "false", None: "–"}
    for item in entries:
        if item["verdict"] != "untested":
            cells = (item["statement"].replace("|", "\\|"), f"`{item['table']}`", truth[item["published"]],
                     item["verdict"], share(item["share"]))  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cost(path: Path) -> str:
    """The seconds of timings.json as a table of h:mm:ss."""
    if not path.exists():
        return "No timings were recorded for this run."
    times = [f"| {what} | {timedelta(seconds=round(seconds))} |" for what, seconds in io.read_json(path).items()]
    return "\n".join(["| what | wall time, h:mm:ss |", "|---|---:|", *times])


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"missing file: {path}") from None
