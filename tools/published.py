"""Published runs: finished runs, or some tasks of them, kept in git with their tables.

Each is a folder of `results/published/`:

    metrics.csv       as `results/metrics.csv`, its tasks alone: a record for each subject and seed, and one for all
    claims.json       [{"id", "statement", "table", "task", "verdict", "share", "published", "reason"}]
    params.yaml       the parameters of the run, as they were called when it ran
    environment.json  as `results/environment.json`
    timings.json      {what: seconds}, written by hand; may be absent
    COMMIT            the commit of the code that ran
    README.md         all of it as tables, written by `make readme`

`make readme ARGS='--publish NAME TASK ...'` copies those tasks of the run in the working tree to
`results/published/NAME` (all but timings.json). Runs from before the present names were converted by
`tools/convert_names.py`.
"""

import json
import subprocess
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import yaml

from palinode.core import io
from palinode.core.errors import UserError
from palinode.core.work import PLANS, read_plan
from palinode.metrics import registry
from palinode.params.report_settings import ReportSettings
from palinode.report import claims, records, tables
from palinode.report.collect import ALL, REFERENCE_ROWS, Cell, Row, Task, collect
from palinode.report.page import show_share
from palinode.report.reference_tables import read_mapping, read_tables
from palinode.report.sections import attack_results

PUBLISHED = Path("results/published")
RAN = ("src", "stages", "dvc.yaml")  # the code of a run
HEAD = """Commit `{commit}`, seeds {seeds}; {machine}, {libraries}. Parameters: [params.yaml](params.yaml); every \
metric of every row, subject and seed: [metrics.csv](metrics.csv). Written by `make readme`."""
CELLS = """Each cell: value [95 % interval] · *the paper's number*. """
INTERVALS = """With several seeds an interval adds what varies between them (Student t) to what varies between \
pictures, since all seeds draw from the same noise; with several subjects it adds these too. With one seed, as in all \
reference rows, it speaks of pictures only."""
STUDENT = """Intervals are over subjects where there are several, else over seeds where there are several (Student t), \
else over samples. For rates they are at least Wilson's for one seed's pictures, since all seeds draw from the same \
noise. Intervals of this kind were used before version 0.2.0, and are too narrow where seeds agree."""
ATTACKED = """Under attack: share of pictures for the training prompts in which the judge sees the target, and the \
first of the steps looked at with half of them. At step 0 prompt tuning has random words."""
TESTED = """Share = of the paired bootstrap replicates in which the claim is true (at least 95 %: holds, at most 5 %: \
fails). What is true by construction was not tested. Why others are untested stands in [claims.json](claims.json)."""
TRUTH = {True: "true", False: "false", None: "–"}


def publish(name: str, tasks: list[str], root: Path = Path(".")) -> None:
    """Copy tasks of the finished run in `root` to results/published/<name>.

    UserError when its code was not committed, or it has no such task.
    """
    folder = root / PUBLISHED / name
    commit = io.read_json(root / "results/environment.json")["commit"]
    if commit is None:
        raise UserError("results/environment.json names no commit: run the report stage in a git checkout")
    if subprocess.run(["git", "diff", "--quiet", commit, "--", *RAN], cwd=root, check=False).returncode:
        raise UserError(f"the code is not that of commit {commit[:12]}: commit it and run again")
    collected = collect(choose_tasks(read_plan(root / PLANS / "report.json", ReportSettings), tasks), root)
    outcomes = claims.evaluate(collected, root / "reference")
    io.write_csv(folder / "metrics.csv", records.list_records(collected), records.FIELDS)
    for source in ("results/environment.json", "params.yaml"):
        io.write_text(folder / Path(source).name, (root / source).read_text(encoding="utf-8"))
    io.write_json(folder / "claims.json", [describe_outcome(result) for result in outcomes])
    io.write_text(folder / "COMMIT", commit + "\n")


def choose_tasks(settings: ReportSettings, names: list[str]) -> ReportSettings:
    """The settings with these tasks alone; UserError for a name that is no task of the run."""
    known = {task.name for task in settings.tasks}
    if unknown := set(names) - known:
        raise UserError(f"the run has no task {', '.join(sorted(unknown))}")
    return settings.model_copy(update={"tasks": [task for task in settings.tasks if task.name in names]})


def describe_outcome(result: claims.Result) -> dict[str, object]:
    """One entry of claims.json; `published` is the truth of the claim on the table's own numbers, or null."""
    return {
        "id": result.claim["id"],
        "statement": result.claim["statement"],
        "table": result.table["id"],
        "task": result.task,
        "verdict": result.verdict,
        "share": result.share,
        "published": result.claim["holds_on_rows"],
        "reason": result.reason,
    }


def list_runs(root: Path = Path(".")) -> list[Path]:
    """The folders of the published runs, by kind and name. UserError when there is none."""
    folders = [path for path in (root / PUBLISHED).glob("*") if path.is_dir()]
    if not folders:
        raise UserError(f"{PUBLISHED} holds no run: `make readme ARGS='--publish NAME TASK'` publishes a finished one")
    kinds = {folder: io.read_csv(folder / "metrics.csv")[0]["kind"] for folder in folders}
    return sorted(folders, key=lambda folder: (list(registry.KINDS).index(kinds[folder]), folder.name))


def write_page(folder: Path, root: Path = Path(".")) -> str:
    """A run's own page: where it comes from, its tables, claims and times."""
    run = Run.read(folder)
    head = HEAD.format(commit=run.commit, seeds=run.seeds, machine=run.machine, libraries=run.libraries)
    parts = [f"# Run `{folder.name}`", head, CELLS + describe_intervals(run.tasks)]
    for task in run.tasks:
        parts += list_tables(task, root)
    parts += ["## Claims", list_verdicts(json.loads(read_text(folder / "claims.json")))]
    parts += ["## Times", list_times(folder / "timings.json")]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def describe_intervals(tasks: list[Task]) -> str:
    """What the intervals of a run are, by the names that it stored."""
    cells = [cell for task in tasks for row in task.rows for cell in row.cells]
    kinds = {entry["interval"] for cell in cells for entry in cell.metrics.values()}
    return STUDENT if kinds & {"t", "wilson-t"} else INTERVALS


def list_tables(task: Task, root: Path) -> list[str]:
    """The main table of a task, those of attacks and cost where it has any."""
    papers, mapping = read_references(root)
    parts = [f"## Task `{task.name}`", tables.markdown(tables.main_table(task, papers, mapping))]
    if attack_results.list_steps(task):
        parts += [ATTACKED, tables.markdown(attack_results.build_table(task, mapping))]
    costs = tables.cost_table(task, papers, mapping)
    return [*parts, tables.markdown(costs)] if costs.columns else parts


def read_references(root: Path) -> tuple[dict[str, dict], dict]:
    """The papers' tables by id, and the mapping of our names to theirs."""
    folder = root / "reference"
    return {table["id"]: table for table in read_tables(folder)}, read_mapping(folder)


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
        """Of params.yaml only the seeds and each row's `paper` are read, which have always been called so."""
        parameters = yaml.safe_load(read_text(folder / "params.yaml"))
        environment = io.read_json(folder / "environment.json")
        threads = environment["threads"]
        versions = [f"{name} {environment['libraries'][name]}" for name in ("torch", "diffusers", "dvc")]
        return cls(
            tasks=read_tasks(folder, parameters),
            seeds=", ".join(map(str, parameters["seeds"])),
            commit=read_text(folder / "COMMIT").strip()[:12],
            machine=f"{environment['cuda'] or environment['cpu']}, {threads} thread{'s' * (threads > 1)}",
            libraries=", ".join([f"Python {environment['python']}", *versions]),
        )


def read_tasks(folder: Path, parameters: dict) -> list[Task]:
    """The records over all subjects and seeds as tasks whose rows have one cell each."""
    metrics: dict[tuple[str, str], dict[str, dict[str, dict]]] = {}
    for record in io.read_csv(folder / "metrics.csv"):
        if record["seed"] == ALL:
            rows = metrics.setdefault((record["kind"], record["task"]), {})
            rows.setdefault(record["row"], {})[record["metric"]] = read_entry(record)
    return [
        Task(
            name,
            kind,
            parameters["seeds"],
            [read_row(row, kind, cell, parameters) for row, cell in rows.items()],
            folder,
        )
        for (kind, name), rows in metrics.items()
    ]


def read_row(name: str, kind: str, metrics: dict[str, dict], parameters: dict) -> Row:
    paper = parameters["rows"].get(name, {}).get("paper")
    cells = [Cell(ALL, 0, PUBLISHED, metrics)]
    return Row(name, cells, reference=name in REFERENCE_ROWS[kind], paper=paper)


def read_entry(record: dict[str, str]) -> dict[str, object]:
    """A record of metrics.csv as an entry of a cell's metrics.json."""
    numbers = {name: float(record[name]) if record[name] else None for name in ("value", "lo", "hi")}
    return {**numbers, "n": int(record["n"]), "interval": record["interval"], "reason": record["reason"]}


def list_verdicts(entries: list[dict]) -> str:
    """How many claims ended how, and those that could be tested."""
    counts = Counter(entry["verdict"] for entry in entries)
    totals = ", ".join(f"{counts[verdict]} {verdict}" for verdict in claims.VERDICTS)
    lines = [
        f"{totals}. {TESTED}",
        "",
        "| claim | source | published numbers | here | share |",
        "|---|---|---|---|---:|",
    ]
    for entry in entries:
        if entry["verdict"] != "untested":
            statement = entry["statement"].replace("|", "\\|")
            share = "–" if entry["share"] is None else show_share(entry["share"])
            cells = (statement, f"`{entry['table']}`", TRUTH[entry["published"]], entry["verdict"], share)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def list_times(path: Path) -> str:
    """The seconds of timings.json as a table of h:mm:ss."""
    if not path.exists():
        return "No timings were recorded for this run."
    times = [f"| {what} | {timedelta(seconds=round(seconds))} |" for what, seconds in io.read_json(path).items()]
    return "\n".join(["| what | wall time, h:mm:ss |", "|---|---:|", *times])


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"missing file: {path}") from None
