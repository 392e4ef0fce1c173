"""The generated parts of README.md: the published numbers, strengths, the graph. Run with `make readme`.

Each folder of `results/published/` holds one finished run, or some tasks of it:

    metrics.csv       as `results/metrics.csv`, its tasks alone: a record for each seed, and one with seed `all`
    claims.json       [{"id", "statement", "table", "task", "verdict", "share", "published", "reason"}]
    params.yaml       the parameters of the run
    environment.json  as `results/environment.json`
    timings.json      {what: seconds}, written by hand; may be absent
    COMMIT            the commit of the code that ran

`make readme ARGS='--publish NAME TASK ...'` first copies those tasks of the run in the working tree to
`results/published/NAME` (all but timings.json).
"""

import csv
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import strengths
import yaml

from palinode import io, settings
from palinode.errors import UserError
from palinode.report import claims, collect, page, tables
from palinode.report.collect import Cell, Row, Task
from palinode.stage import main

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
        first = next(csv.DictReader(_read(folder / "metrics.csv").splitlines()))
        return families.index(first["family"]), folder.name

    found = sorted((path for path in (root / PUBLISHED).glob("*") if path.is_dir()), key=order)
    if not found:
        raise UserError(f"{PUBLISHED} holds no run: `make readme ARGS='--publish NAME TASK'` publishes a finished one")
    return found


def results(root: Path = Path(".")) -> str:
    """The block between the `results` marks: run, table, claims and cost of each published run as Markdown."""
    return "\n\n".join(result(folder, root, shown=i == 0) for i, folder in enumerate(runs(root)))


def result(folder: Path, root: Path, shown: bool) -> str:
    """The same of one run. shown: whether its tables are open when the page is."""
    chosen = yaml.safe_load(_read(folder / "params.yaml"))
    mapping = claims.read_mapping(root / "reference")
    papers = {table["id"]: table for table in claims.read_tables(root / "reference")}
    environment = io.read_json(folder / "environment.json")
    seeds, threads = ", ".join(map(str, chosen["seeds"])), environment["threads"]
    libraries = ", ".join(f"{name} {environment['libraries'][name]}" for name in ("torch", "diffusers", "dvc"))
    device = environment["cuda"] or environment["cpu"]
    commit = _read(folder / "COMMIT").strip()[:12]
    parts = [f"### Run `{folder.name}`",
             f"Commit `{commit}`, seed{'s' * (len(chosen['seeds']) > 1)} {seeds}; {device}, "
             f"{threads} thread{'s' * (threads > 1)}, Python {environment['python']}, {libraries}. "
             "Each cell: value [95 % interval] · *the paper's number*; intervals over seeds (Student t; for rates at "
             "least Wilson's for one seed's pictures, since all seeds draw from the same noise) where there are "
             "several, else over samples.",
             f"<details{' open' * shown}><summary>Tables, claims and times</summary>"]  # fmt: skip
    for task in read_tasks(folder, chosen):
        both = tables.main_table(task, papers, mapping), tables.cost_table(task, papers, mapping)
        parts += [f"**Task `{task.name}`**", *(tables.markdown(table) for table in both if table.columns)]
    parts += [verdicts(io.read_json(folder / "claims.json"), folder), cost(folder / "timings.json"), "</details>"]
    return "\n\n".join(part.strip() for part in parts)


def read_tasks(folder: Path, chosen: dict) -> list[Task]:
    """The `all` records of metrics.csv as tasks whose rows have one cell each. chosen: params.yaml."""
    found: dict[tuple[str, str], dict[str, dict[str, dict]]] = {}
    for record in csv.DictReader(_read(folder / "metrics.csv").splitlines()):
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


def verdicts(entries: list[dict], folder: Path) -> str:
    """How many claims ended how, and those that could be tested."""
    counts = Counter(item["verdict"] for item in entries)
    totals = ", ".join(f"{counts[verdict]} {verdict}" for verdict in claims.VERDICTS)
    lines = [
        f"Claims: {totals}. Share = of the paired bootstrap replicates in which the claim is true (at least 95 %:",
        "holds, at most 5 %: fails). Why the others are untested stands in "
        f"`{PUBLISHED}/{folder.name}/claims.json`.",
        "", "| claim | source | published numbers | here | share |", "|---|---|---|---|---:|",
    ]  # fmt: skip
    truth = {True: "true", False: "false", None: "–"}
    for item in entries:
        if item["verdict"] != "untested":
            cells = (item["statement"].replace("|", "\\|"), f"`{item['table']}`", truth[item["published"]],
                     item["verdict"], page.share(item["share"]))  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cost(path: Path) -> str:
    """The seconds of timings.json as a table of h:mm:ss."""
    if not path.exists():
        return "No timings were recorded for this run."
    times = [f"| {what} | {timedelta(seconds=round(seconds))} |" for what, seconds in io.read_json(path).items()]
    return "\n".join(["| what | wall time, h:mm:ss |", "|---|---:|", *times])


def equal(root: Path = Path(".")) -> str:
    """The block between the `strengths` marks: what tools/strengths.py found."""
    found = sorted((root / strengths.OUT).glob("*.json"))
    return "\n\n".join(strengths.markdown(io.read_json(path), path.stem) for path in found)


def graph(root: Path = Path(".")) -> str:
    """The block between the `dag` marks: `dvc dag` as a Mermaid chart, without edges that others imply."""
    command = [sys.executable, "-m", "dvc", "dag", "--collapse-foreach-matrix", "--mermaid"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"`dvc dag` failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return "```mermaid\n" + reduced(done.stdout) + "```"


def reduced(chart: str) -> str:
    """A Mermaid flowchart as `dvc dag` prints it, transitively reduced, lines in a fixed order."""
    lines = [line.strip() for line in chart.splitlines()]
    names = dict(line.removesuffix('"]').split('["') for line in lines if '["' in line)
    after: dict[str, set[str]] = {names[node]: set() for node in names}
    for start, end in (line.split("-->") for line in lines if "-->" in line):
        after[names[start]].add(names[end])

    def reach(node: str) -> set[str]:
        return after[node].union(*(reach(other) for other in after[node]))

    edges = [(a, b) for a in sorted(after) for b in sorted(after[a])
             if not any(b in reach(other) for other in after[a])]  # fmt: skip
    return "flowchart TD\n" + "".join(f"    {a} --> {b}\n" for a, b in edges)


def insert(text: str, name: str, block: str) -> str:
    """`text` with `block` between the marks `<!-- name:begin -->` and `<!-- name:end -->`."""
    before, begin, rest = text.partition(f"<!-- {name}:begin -->")
    _, end, after = rest.partition(f"<!-- {name}:end -->")
    if not begin or not end:
        raise UserError(f"README.md: the marks of the block `{name}` are missing")
    return f"{before}{begin}\n{block}\n{end}{after}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"missing file: {path}") from None


def run(*arguments: str) -> None:
    if arguments and (arguments[0] != "--publish" or len(arguments) < 3):
        raise UserError(f"unknown arguments {' '.join(arguments)}: only --publish NAME TASK ... is known")
    if arguments:
        publish(arguments[1], list(arguments[2:]))
    readme = Path("README.md")
    text = insert(insert(_read(readme), "dag", graph()), "strengths", equal())
    io.write_text(readme, insert(text, "results", results()))


if __name__ == "__main__":
    main(run)
