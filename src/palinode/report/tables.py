"""The report's tables: this run's estimates beside the papers' numbers, as rows of plain cells, and as Markdown."""

from dataclasses import dataclass

from palinode.report.claims import paper_rows
from palinode.report.collect import Estimate, Row, Task


@dataclass(frozen=True)
class Column:
    """A metric as it is shown. `scale` multiplies the value (100 for a rate in %); `kept`: not shown of a row that did
    not erase its target, since keeping is no merit of a model that forgot nothing."""

    metric: str
    label: str
    arrow: str
    digits: int
    unit: str = ""
    scale: float = 1.0
    kept: bool = False


def rate(metric: str, label: str, arrow: str = "↑", kept: bool = False) -> Column:
    return Column(metric, label, arrow, 1, "%", 100.0, kept)


DATA = (
    Column("inception_score_judge", "Inception score (judge)", "↑", 2),
    Column("nll_forget", "NLL of the forget image", "↑", 2, "bits/dim"),
    Column("eps_error_forget", "ε-error on the forget image", "↑", 3),
    Column("forget_rate", "Forget rate p", "↓", 2, "%", 100.0),
    Column("kid_judge", "KID (judge)", "↓", 3),
    Column("denoise_similarity_judge", "Denoise similarity (judge)", "↓", 2),
    Column("integrity_judge", "Integrity (judge)", "↑", 2),
    Column("oracle_similarity_judge", "Similarity to oracle (judge)", "↑", 2),
)
CONCEPT = (
    rate("ua_t0", "UA, T0"),
    rate("ua_t1", "T1"),
    rate("ua_t2", "T2"),
    rate("ua_t3", "T3"),
    rate("ua_t4", "T4"),
    rate("ua_gap", "Gap in to out", "↓"),
    rate("right_anchor", "Anchor right", kept=True),
    rate("right_near", "Near right (IRA)", kept=True),
    rate("right_far", "Far right (IRA)", kept=True),
    rate("right_other_domain", "Other domain right (CRA)", kept=True),
    Column("integrity_near_judge", "Integrity, near (judge)", "↑", 2, kept=True),
    Column("integrity_far_judge", "Integrity, far (judge)", "↑", 2, kept=True),
    Column("fid_kept_judge", "FID of what is kept (judge)", "↓", 2, kept=True),
)
PROMPTS = (
    rate("success_modified", "Success, modified prompt"),
    rate("success_original", "Success, original prompt"),
    rate("memorised_modified", "Memorised, modified", "↓"),
    rate("memorised_original", "Memorised, original", "↓"),
    rate("copies_modified", "Pixel copies, modified", "↓"),
    rate("copies_original", "Pixel copies, original", "↓"),
    rate("sscd_copies_modified", "Copies (SSCD), modified", "↓"),
    rate("sscd_copies_original", "Copies (SSCD), original", "↓"),
    rate("realism_modified_judge", "Realism, modified (judge)"),
    rate("realism_original_judge", "Realism, original (judge)"),
    Column("noise_norm_original", "Noise norm, original", "↓", 2),
    Column("integrity_ordinary_judge", "Integrity, ordinary prompts (judge)", "↑", 2),
    rate("copies_others", "Copies under other memorised prompts", ""),
    rate("sscd_copies_others", "Copies (SSCD) under the task's other prompts", ""),
    rate("in_turn_memorised_original", "All in turn: memorised, original", "↓"),
    Column("in_turn_integrity_ordinary_judge", "All in turn: integrity, ordinary (judge)", "↑", 2),
)
MAIN = {"data": DATA, "concept": CONCEPT, "prompts": PROMPTS}
ERASED = 0.8  # a row has erased its target if the judge misses it in at least this share of T0
COPIES = (
    Column("copy_rate_forget", "Copies of the forget images", "↓", 2, "%", 100.0),
    Column("copy_rate", "Copies of any training image", "↓", 2, "%", 100.0),
    Column("copy_rate_held", "Held-out images flagged", "", 2, "%", 100.0),
)
COST = (
    Column("forward_passes", "Forward passes", "", 0, "samples"),
    Column("backward_passes", "Backward passes", "", 0, "samples"),
    Column("forwards_per_sample", "Forwards a sample", "", 2),
    Column("backwards_per_sample", "Backwards a sample", "", 2),
    Column("cost_per_sample", "Cost a sample", "", 2, "F"),
)
PAPER_TABLES = {"main": ("siss_mnist_tshirt_table2", "erasediff_cifar10_table1", "siss_sd_success"),
                "cost": ("siss_cost_per_sample",)}
ROW_NOTES = {"real": "training images", "base": "before unlearning", "oracle": "never saw what is forgotten",
             "other": "the base, from another noise", "mitigated": "the base, its prompts' states moved"}


@dataclass(frozen=True)
class TableCell:
    """Shown text: value, interval, paper's value ("" if it has none), and the reason if there is no value."""

    value: str
    interval: str
    paper: str
    reason: str


@dataclass(frozen=True)
class Table:
    """`has_paper[i]` says whether column i has a paper's number in any row, and so a second sub-column."""

    columns: tuple[Column, ...]
    rows: list[tuple[str, bool, list[TableCell]]]  # name, whether a reference row, one cell a column
    has_paper: list[bool]


def show(value: float | None, column: Column) -> str:
    """A number with the column's digits, one fewer from 10 on, two from 100 on; a diverged one in powers of ten."""
    if value is None:
        return ""
    value *= column.scale
    if abs(value) >= 1e4 and column.digits:
        return f"{value:.2e}"
    digits = max(0, column.digits - (abs(value) >= 10) - (abs(value) >= 100))
    text = f"{value:,.{digits}f}".replace(",", " ")
    return text.replace("-", "−") if float(text.replace(" ", "")) else text.lstrip("-")


def show_paper(value: float | None, column: Column) -> str:
    """The paper's number as it is in the reference file, without trailing zeros."""
    return "" if value is None else f"{value * column.scale:.6g}".replace("-", "−")


def show_interval(item: Estimate, column: Column) -> str:
    """The 95 % interval as [lo, hi], ∞ for an end that was not reached; empty for an exact count."""
    return "" if item.value is None or item.lo is None else f"[{show(item.lo, column)}, {show(item.hi, column) or '∞'}]"


def erased(row: Row) -> bool:
    """Whether a row has forgotten; reference rows and rows of a family without UA are not asked."""
    forgotten = row.estimate("ua_t0").value
    return row.reference or forgotten is None or forgotten >= ERASED


def build(
    task: Task, columns: tuple[Column, ...], table: dict | None, mapping: dict, rows: list | None = None
) -> Table:
    """Rows × `columns` of a task; `table` is the paper's table shown beside (None: no paper column).

    A column is left out only if no cell of the task lists its metric, not even as absent.
    """
    known = {metric for metric in task.metrics}
    columns = tuple(column for column in columns if column.metric in known)
    metrics = mapping["tasks"].get(task.name, {}).get(table["id"], {}) if table else {}
    theirs = {entry["ours"]: name for name, entry in metrics.items()}
    ids = {ours: paper for paper, ours in paper_rows(task, mapping).items()}
    built = []
    for row in task.rows if rows is None else rows:
        numbers = table["rows"].get(ids.get(row.name), {}) if table else {}
        cells = []
        for column in columns:
            item = row.estimate(column.metric)
            paper = numbers.get(theirs.get(column.metric))
            if column.kept and not erased(row):
                cells.append(TableCell("–", "did not erase", show_paper(paper, column), ""))
                continue
            cells.append(TableCell(show(item.value, column), show_interval(item, column),
                                   show_paper(paper, column), item.reason))
        built.append((row.name, row.reference, cells))
    has_paper = [any(cells[i].paper for _, _, cells in built) for i in range(len(columns))]
    return Table(columns, built, has_paper)


def main_table(
    task: Task, tables: dict[str, dict], mapping: dict, columns: tuple[Column, ...] | None = None
) -> Table:
    """Headline metrics, or `columns` of them; reference rows first. `tables` are the papers' tables by id."""
    return build(task, columns or MAIN[task.family], _paper_table(task, "main", tables, mapping), mapping)


def cost_table(task: Task, tables: dict[str, dict], mapping: dict) -> Table:
    """Passes of the unlearning rows, and per sample of an optimiser step beside the count derived from code."""
    rows = [row for row in task.rows if not row.reference]
    return build(task, COST, _paper_table(task, "cost", tables, mapping), mapping, rows)


def _paper_table(task: Task, kind: str, tables: dict[str, dict], mapping: dict) -> dict | None:
    """The first table of PAPER_TABLES[kind] that the mapping gives the task."""
    given = mapping["tasks"].get(task.name, {})
    return next((tables[name] for name in PAPER_TABLES[kind] if name in given), None)


def full_table(task: Task) -> list[tuple[str, list[TableCell]]]:
    """Every metric × every row, six significant digits at most: (metric, one cell a row)."""
    rows = []
    for metric in task.metrics:
        cells = []
        for item in (row.estimate(metric) for row in task.rows):
            numbers = (item.value, item.lo, item.hi)
            texts = ["" if value is None else f"{value:.4g}".replace("-", "−") for value in numbers]
            cells.append(TableCell(texts[0], f"[{texts[1]}, {texts[2] or '∞'}]" if texts[1] else "", "", item.reason))
        rows.append((metric, cells))
    return rows


def absences(task: Task) -> list[tuple[str, list[str]]]:
    """Reasons of absent metrics, each once: (reason, ["row: metric, metric", ...])."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in task.rows:
        for metric in task.metrics:
            listed = any(cell.absent or metric in cell.metrics for cell in row.cells)
            reason = row.estimate(metric).reason
            if listed and reason:
                found.setdefault(reason, {}).setdefault(row.name, []).append(metric)
    return [(reason, [f"{row}: {'all' if len(names) == len(task.metrics) else ', '.join(names)}"
                      for row, names in rows.items()]) for reason, rows in found.items()]


def markdown(table: Table) -> str:
    """GitHub Markdown: `ours [lo, hi]`, and the paper's number in italics where there is one."""
    heads = ["row"]
    for column in table.columns:
        unit = f", {column.unit}" if column.unit else ""
        heads.append(f"{column.label}{unit} {column.arrow}".strip())
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * len(table.columns) + "|"]
    for label, _, cells in table.rows:
        texts = []
        for cell in cells:
            interval = f" {cell.interval}" if cell.interval else ""
            paper = f" · *{cell.paper}*" if cell.paper else ""
            texts.append((cell.value + interval if cell.value else "–") + paper)
        lines.append(f"| {label} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"
