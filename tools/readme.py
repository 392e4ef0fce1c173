"""The generated parts of README.md and docs/, and the pages of the published runs. Run with `make readme`.

`make readme ARGS='--publish NAME TASK ...'` first publishes those tasks of the run in the working tree.
"""

import subprocess
import sys
from pathlib import Path

import published
import strengths
from published import PUBLISHED, Run

from palinode import io
from palinode.errors import UserError
from palinode.report import tables
from palinode.stage import main

SHOWN = {  # run -> the metrics of its main table that README.md shows; the others are on the run's own page
    "tshirt": ("inception_score_judge", "nll_forget", "eps_error_forget", "forget_rate", "integrity_judge"),
    "emoji-object": ("ua_t0", "ua_t1", "ua_t3", "right_anchor", "right_near", "integrity_near_judge"),
    "emoji-memorized": ("success_original", "memorised_original", "copies_original", "realism_original_judge",
                        "integrity_ordinary_judge", "in_turn_integrity_ordinary_judge"),
}  # fmt: skip


def results(root: Path = Path(".")) -> str:
    """The block between the `results` marks of README.md: what SHOWN names, then a list of all runs."""
    found = published.runs(root)
    parts = [table for folder in found if folder.name in SHOWN for table in (excerpt(folder, root), "")]
    heads = ("run", "task", "rows", "seeds", "commit", "machine")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for folder in found:
        run = Run.read(folder)
        names = ", ".join(f"`{task.name}`" for task in run.tasks)
        rows = sum(not row.reference for task in run.tasks for row in task.rows)
        cells = (page_of(folder), names, str(rows), run.seeds, f"`{run.commit}`", run.machine)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*parts, *lines])


def excerpt(folder: Path, root: Path) -> str:
    """Some columns of a run's main table."""
    papers, mapping = published.papers(root)
    run, metrics = Run.read(folder), SHOWN[folder.name]
    (task,) = run.tasks
    columns = tuple(column for column in tables.MAIN[task.family] if column.metric in metrics)
    beside = tables.main_table(task, papers, mapping, columns)
    return f"**{page_of(folder)}**, seeds {run.seeds}\n\n{tables.markdown(beside)}"


def page_of(folder: Path) -> str:
    """A link to a run's own page."""
    return f"[`{folder.name}`]({PUBLISHED}/{folder.name}/README.md)"


def equal(root: Path = Path(".")) -> str:
    """The block between the `strengths` marks: what tools/strengths.py found."""
    found = sorted((root / strengths.FOLDER).glob("*.json"))
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


def written(root: Path = Path(".")) -> dict[Path, dict[str, str]]:
    """File -> name of a block -> what belongs between its marks."""
    return {Path("README.md"): {"results": results(root), "dag": graph(root)},
            Path("docs/concepts.md"): {"strengths": equal(root)}}  # fmt: skip


def insert(text: str, name: str, block: str) -> str:
    """`text` with `block` between the marks `<!-- name:begin -->` and `<!-- name:end -->`."""
    before, begin, rest = text.partition(f"<!-- {name}:begin -->")
    _, end, after = rest.partition(f"<!-- {name}:end -->")
    if not begin or not end:
        raise UserError(f"the marks of the block `{name}` are missing")
    return f"{before}{begin}\n{block}\n{end}{after}"


def run(*arguments: str) -> None:
    if arguments and (arguments[0] != "--publish" or len(arguments) < 3):
        raise UserError(f"unknown arguments {' '.join(arguments)}: only --publish NAME TASK ... is known")
    if arguments:
        published.publish(arguments[1], list(arguments[2:]))
    for path, blocks in written().items():
        text = published.read(path)
        for name, block in blocks.items():
            text = insert(text, name, block)
        io.write_text(path, text)
    for folder in published.runs():
        io.write_text(folder / "README.md", published.page(folder))


if __name__ == "__main__":
    main(run)
