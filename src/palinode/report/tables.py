"""The report's tables: this run's estimates beside the papers' numbers, as rows of plain cells, and as Markdown."""

from dataclasses import dataclass

from palinode.metrics import registry
from palinode.metrics.registry import Entry
from palinode.report.averages import Estimate
from palinode.report.collect import Row, Task
from palinode.report.reference_tables import match_rows

ERASED = 0.8  # a row has erased its target if the judge misses it under at least this share of training prompts
FORGOTTEN = "ua_training_prompts"
ARROWS = {"up": "↑", "down": "↓", "none": ""}
PAPER_TABLES = {  # beside which of our tables the papers' are shown
    "main": ("siss_mnist_tshirt_table2", "erasediff_cifar10_table1", "siss_sd_success"),
    "cost": ("siss_cost_per_sample",),
}
ROW_NOTES = {
    "real": "training images",
    "base": "before unlearning",
    "oracle": "never saw what is forgotten",
    "other-seed": "the base, from another noise",
    "mitigated": "the base, its prompts' states moved",
}
LARGE = 1e4  # from here on a number is shown in powers of ten


@dataclass(frozen=True)
class TableCell:
    """Shown text: value, interval, paper's value ("" if it has none), and the reason if there is no value."""

    value: str
    interval: str
    paper: str
    reason: str


@dataclass(frozen=True)
class TableRow:
    name: str
    reference: bool
    cells: list[TableCell]


@dataclass(frozen=True)
class Table:
    """Rows of one cell a column; a column with a paper's number in any row has a second sub-column."""

    columns: tuple[Entry, ...]
    rows: list[TableRow]

    @property
    def has_paper(self) -> list[bool]:
        return [any(row.cells[i].paper for row in self.rows) for i in range(len(self.columns))]


def show(value: float | None, entry: Entry) -> str:
    """A number with the entry's digits, one fewer from 10 on, two from 100 on; a diverged one in powers of ten."""
    if value is None:
        return ""
    value *= entry.scale
    if abs(value) >= LARGE and entry.digits:
        return f"{value:.2e}"
    digits = max(0, entry.digits - (abs(value) >= 10) - (abs(value) >= 100))
    text = f"{value:,.{digits}f}".replace(",", " ")
    return text.replace("-", "−") if float(text.replace(" ", "")) else text.lstrip("-")


def show_paper(value: float | None, entry: Entry) -> str:
    """The paper's number as it is in the reference file, without trailing zeros."""
    return "" if value is None else f"{value * entry.scale:.6g}".replace("-", "−")


def show_interval(estimate: Estimate, entry: Entry) -> str:
    """The 95 % interval as [lo, hi], ∞ for an end that was not reached; empty for an exact count."""
    if estimate.value is None or estimate.lo is None:
        return ""
    return f"[{show(estimate.lo, entry)}, {show(estimate.hi, entry) or '∞'}]"


def has_erased(row: Row) -> bool:
    """Whether a row has forgotten; reference rows and rows of a kind without UA are not asked."""
    forgotten = row.estimate(FORGOTTEN).value
    return row.reference or forgotten is None or forgotten >= ERASED


def build(
    task: Task, columns: tuple[Entry, ...], table: dict | None, mapping: dict, rows: list[Row] | None = None
) -> Table:
    """Rows × `columns` of a task; `table` is the paper's table shown beside (None: no paper column).

    A column is left out only if no cell of the task lists its metric, not even as absent.
    """
    known = set(task.metrics)
    columns = tuple(entry for entry in columns if entry.name in known)
    metrics = mapping["tasks"].get(task.name, {}).get(table["id"], {}) if table else {}
    theirs = {entry["ours"]: name for name, entry in metrics.items()}
    ids = {ours: paper for paper, ours in match_rows(task, mapping).items()}
    built = []
    for row in task.rows if rows is None else rows:
        numbers = table["rows"].get(ids.get(row.name), {}) if table else {}
        cells = [build_cell(row, entry, numbers.get(theirs.get(entry.name))) for entry in columns]
        built.append(TableRow(row.name, row.reference, cells))
    return Table(columns, built)


def build_cell(row: Row, entry: Entry, paper: float | None) -> TableCell:
    beside = show_paper(paper, entry)
    if entry.kept and not has_erased(row):
        return TableCell("–", "did not erase", beside, "")
    estimate = row.estimate(entry.name)
    return TableCell(show(estimate.value, entry), show_interval(estimate, entry), beside, estimate.reason)


def main_table(task: Task, tables: dict[str, dict], mapping: dict, columns: tuple[Entry, ...] | None = None) -> Table:
    """Headline metrics, or `columns` of them; reference rows first. `tables` are the papers' tables by id."""
    return build(task, columns or registry.columns(task.kind), find_paper(task, "main", tables, mapping), mapping)


def cost_table(task: Task, tables: dict[str, dict], mapping: dict) -> Table:
    """NFE of the unlearning rows, and per sample of an optimiser step beside the count derived from code."""
    return build(task, registry.COST, find_paper(task, "cost", tables, mapping), mapping, task.unlearned)


def find_paper(task: Task, place: str, tables: dict[str, dict], mapping: dict) -> dict | None:
    """The first table of PAPER_TABLES[place] that the mapping gives the task."""
    mapped = mapping["tasks"].get(task.name, {})
    return next((tables[name] for name in PAPER_TABLES[place] if name in mapped), None)


def full_table(task: Task) -> list[tuple[str, list[TableCell]]]:
    """Every metric × every row, four significant digits: (metric, one cell a row)."""
    return [(metric, [plain_cell(row.estimate(metric)) for row in task.rows]) for metric in task.metrics]


def plain_cell(estimate: Estimate) -> TableCell:
    value, lo, hi = (brief(number) for number in (estimate.value, estimate.lo, estimate.hi))
    return TableCell(value, f"[{lo}, {hi or '∞'}]" if lo else "", "", estimate.reason)


def brief(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}".replace("-", "−")


def list_absences(task: Task) -> list[tuple[str, list[str]]]:
    """Reasons of absent metrics, each once: (reason, ["row: metric, metric", ...])."""
    reasons: dict[str, list[str]] = {}
    for row in task.rows:
        listed = [metric for metric in task.metrics if row.lists(metric)]
        absent: dict[str, list[str]] = {}
        for metric in listed:
            reason = row.estimate(metric).reason
            if reason:
                absent.setdefault(reason, []).append(metric)
        for reason, metrics in absent.items():
            names = "all" if metrics == listed else ", ".join(metrics)
            reasons.setdefault(reason, []).append(f"{row.name}: {names}")
    return list(reasons.items())


def markdown(table: Table) -> str:
    """GitHub Markdown: `ours [lo, hi]`, and the paper's number in italics where there is one."""
    heads = ["row", *(name_column(entry) for entry in table.columns)]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * len(table.columns) + "|"]
    lines += [f"| {row.name} | " + " | ".join(map(join_texts, row.cells)) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def name_column(entry: Entry) -> str:
    unit = f", {entry.shown_unit}" if entry.shown_unit else ""
    return f"{entry.label}{unit} {ARROWS[entry.direction]}".strip()


def join_texts(cell: TableCell) -> str:
    interval = f" {cell.interval}" if cell.interval else ""
    paper = f" · *{cell.paper}*" if cell.paper else ""
    return (cell.value + interval if cell.value else "–") + paper
