"""The generated parts of README.md and docs/, and the pages of the published runs. Run with `make readme`.

`make readme ARGS='--publish NAME TASK ...'` first publishes those tasks of the run in the working tree.
"""

import subprocess
import sys
from pathlib import Path

import published
import strengths
from published import PUBLISHED, Run

from palinode.core import io
from palinode.core.errors import UserError
from palinode.metrics import registry
from palinode.pipeline.stage import run_tool
from palinode.report import tables

SHOWN = {  # run -> the metrics of its main table that README.md shows; the others are on the run's own page
    "tshirt": ("inception_score_judge", "nll_forget", "eps_error_forget", "integrity_judge"),
    "emoji-object": (
        "ua_training_prompts",
        "ua_new_attributes",
        "ua_synonyms",
        "accuracy_anchor",
        "accuracy_near",
        "integrity_near_judge",
    ),
    "emoji-memorized": (
        "success_original",
        "memorized_original",
        "copies_original",
        "realism_original_judge",
        "integrity_ordinary_judge",
        "sequential_integrity_ordinary_judge",
    ),
}
DOCUMENTS = ("ARCHITECTURE.md", "README.md")  # one of them has the chart of the graph
HEADS = ("run", "task", "rows", "seeds", "commit", "machine")


def results(root: Path = Path(".")) -> str:
    """The block between the `results` marks of README.md: what SHOWN names, then a list of all runs."""
    folders = published.list_runs(root)
    parts = []
    for folder in folders:
        if folder.name in SHOWN:
            parts += [excerpt(folder, root), ""]
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    lines += [describe_run(folder) for folder in folders]
    return "\n".join([*parts, *lines])


def describe_run(folder: Path) -> str:
    """A run's line in the list of all runs."""
    run = Run.read(folder)
    names = ", ".join(f"`{task.name}`" for task in run.tasks)
    rows = sum(len(task.unlearned) for task in run.tasks)
    cells = (link_page(folder), names, str(rows), run.seeds, f"`{run.commit}`", run.machine)
    return "| " + " | ".join(cells) + " |"


def excerpt(folder: Path, root: Path) -> str:
    """Some columns of a run's main table."""
    papers, mapping = published.read_references(root)
    run = Run.read(folder)
    (task,) = run.tasks
    columns = tuple(entry for entry in registry.columns(task.kind) if entry.name in SHOWN[folder.name])
    table = tables.main_table(task, papers, mapping, columns)
    return f"**{link_page(folder)}**, seeds {run.seeds}\n\n{tables.markdown(table)}"


def link_page(folder: Path) -> str:
    """A link to a run's own page."""
    return f"[`{folder.name}`]({PUBLISHED}/{folder.name}/README.md)"


def equal(kind: str, root: Path = Path(".")) -> str:
    """The block between the `strengths` marks: what tools/strengths.py measured on tasks of a kind."""
    paths = sorted((root / strengths.FOLDER).glob("*.json"))
    compared = {path.stem: io.read_json(path) for path in paths}
    texts = [strengths.markdown(item, task) for task, item in compared.items() if item["kind"] == kind]
    return "\n\n".join(texts)


def graph(root: Path = Path(".")) -> str:
    """The block between the `dag` marks: `dvc dag` as a Mermaid chart, without edges that others imply."""
    command = [sys.executable, "-m", "dvc", "dag", "--collapse-foreach-matrix", "--mermaid"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc dag` failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return "```mermaid\n" + reduce_chart(done.stdout) + "```"


def reduce_chart(chart: str) -> str:
    """A Mermaid flowchart as `dvc dag` prints it, transitively reduced, lines in a fixed order."""
    lines = [line.strip() for line in chart.splitlines()]
    names = dict(line.removesuffix('"]').split('["') for line in lines if '["' in line)
    after: dict[str, set[str]] = {names[node]: set() for node in names}
    for start, end in (line.split("-->") for line in lines if "-->" in line):
        after[names[start]].add(names[end])

    def reach(node: str) -> set[str]:
        return after[node].union(*(reach(other) for other in after[node]))

    edges = [
        (start, end)
        for start in sorted(after)
        for end in sorted(after[start])
        if not any(end in reach(other) for other in after[start])
    ]
    return "flowchart TD\n" + "".join(f"    {start} --> {end}\n" for start, end in edges)


def list_blocks(root: Path = Path(".")) -> dict[Path, dict[str, str]]:
    """File -> name of a block -> what belongs between its marks."""
    blocks = {
        Path("README.md"): {"results": results(root)},
        Path("docs/concepts.md"): {"strengths": equal("concept", root)},
        Path("docs/images.md"): {"strengths": equal("images", root)},
    }
    blocks.setdefault(find_chart(root), {})["dag"] = graph(root)
    return blocks


def find_chart(root: Path) -> Path:
    """The document with the marks of the graph's chart."""
    for path in map(Path, DOCUMENTS):
        if "<!-- dag:begin -->" in published.read_text(root / path):
            return path
    raise UserError(f"the marks of the block `dag` are in none of {', '.join(DOCUMENTS)}")


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
    for path, blocks in list_blocks().items():
        text = published.read_text(path)
        for name, block in blocks.items():
            text = insert(text, name, block)
        io.write_text(path, text)
    write_pages()


def write_pages(root: Path = Path(".")) -> None:
    """The page of every published run."""
    for folder in published.list_runs(root):
        io.write_text(folder / "README.md", published.write_page(folder, root))


if __name__ == "__main__":
    run_tool(run)
