"""Figures with reproducible bytes: Pareto scatter, training curves, contact strip; and CSV files for `dvc plots`."""

import contextlib
import csv
import io as textio
import re
from collections.abc import Callable, Iterator

import numpy as np

from palinode.errors import UserError
from palinode.report import images
from palinode.report.collect import HEADLINE, Row, Task, number, to_csv

INK = "#0a0b0c"  # replaced by `currentColor` in the page, so that figures follow the light and the dark scheme
BLUE, ORANGE, GREEN, GREY = "#2f86c6", "#d9691e", "#1d9a78", "#8a8f98"  # apart for the common colour deficiencies
STYLE = {"svg.hashsalt": "palinode", "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 10,
         "axes.edgecolor": GREY, "axes.linewidth": 0.8, "axes.labelcolor": INK, "axes.titlecolor": INK,
         "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
         "axes.spines.right": False, "axes.titlesize": 10, "axes.titlelocation": "left"}
QUALITY, NLL = "inception_score_judge", "nll_forget"
KEPT = "Inception score (judge), higher = kept"
FRONTS = {  # family -> (metric across, its label, metric up, its label)
    "data": ((NLL, "NLL of the forget image (bits/dim), higher = unlearned", QUALITY, KEPT),
             ("eps_error_forget", "ε-error on the forget image, higher = unlearned", QUALITY, KEPT)),
    "concept": (("ua_t0", "UA on given prompts, higher = unlearned", "right_near", "Near things right, higher = kept"),
                ("ua_t0", "UA on given prompts, higher = unlearned", "integrity_near_judge",
                 "Integrity of near things (judge), higher = kept")),
    "prompts": (),  # a few prompts decide success: the table and the strips show more
}


@contextlib.contextmanager
def figure(width: float, height: float, **grid: object) -> Iterator[tuple]:
    """Yield (figure, axes) of `width` × `height` inches under the report's style, closed afterwards."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "Agg", **STYLE}):
        fig, axes = plt.subplots(figsize=(width, height), layout="constrained", **grid)
        try:
            yield fig, axes
        finally:
            plt.close(fig)


def inline_svg(fig: object, name: str, title: str) -> str:
    """The figure as an `<svg>` element for a page: no prolog, metadata or URL; ids prefixed; ink follows the text."""
    stream = textio.StringIO()
    fig.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg"):], flags=re.S)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    text = text.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def png(fig: object, dpi: int = 110) -> bytes:
    stream = textio.BytesIO()
    fig.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def place_labels(fig: object, ax: object, points: list[tuple[float, float, str]], whiskers: list[tuple]) -> None:
    """Write each label beside its point where it covers least (points, labels, frame); greedy, in a fixed order.

    `whiskers` are boxes (x0, y0, x1, y1) in data units that labels avoid as well.
    """
    fig.canvas.draw()
    renderer = fig.canvas.get_renderer()
    spots = ax.transData.transform([point[:2] for point in points])
    frame = ax.get_window_extent(renderer)
    taken: list[tuple[float, float, float, float]] = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    for box in whiskers:
        (x0, y0), (x1, y1) = ax.transData.transform([box[:2], box[2:]])
        taken.append((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    scale = fig.dpi / 72
    angles = np.deg2rad([0, 45, -45, 90, -90, 135, -135, 180, 22, -22, 158, -158, 67, -67])
    for (x, y, label), spot in sorted(zip(points, spots, strict=True), key=lambda pair: (-pair[1][1], pair[1][0])):
        text = ax.annotate(label, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=9, ha="center",
                           va="center", annotation_clip=False)
        extent = text.get_window_extent(renderer)
        width, height = extent.width + 4, extent.height + 2
        best = None
        for radius in (7, 16, 28, 42, 58, 76):
            for angle in angles:
                shift = radius * scale * np.array([np.cos(angle), np.sin(angle)])
                centre = spot + shift + 0.5 * np.array([width * np.sign(np.round(np.cos(angle), 3)), 0.0])
                box = (centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2)
                covered = sum(_overlap(box, other) for other in taken)
                outside = width * height - _overlap(box, (frame.x0, frame.y0, frame.x1, frame.y1))
                cost = covered + 2 * outside + 3 * radius
                if best is None or cost < best[0]:
                    best = (cost, centre, box, radius)
        _, centre, box, radius = best
        taken.append(box)
        text.set_position(tuple((centre - spot) / scale))
        if radius > 7:
            ax.annotate("", (x, y), xytext=tuple((centre - spot) / scale), textcoords="offset points",
                        arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": height / 2 / scale,
                                    "shrinkB": 4}, annotation_clip=False)


def _overlap(a: tuple, b: tuple) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _log_if_wide(ax: object, values: list[float]) -> str:
    """Logarithmic x axis if the values span more than a factor of 30, so that a diverged row hides no other."""
    if min(values) > 0 and max(values) > 30 * min(values):
        ax.set_xscale("log")
        return " (log scale)"
    return ""


def pareto(task: Task, metric: str, label: str, quality: str, quality_label: str) -> str | None:
    """Quality × unlearning with 95 % intervals, rows labelled at their points -> inline SVG; None without two rows."""
    found = [(row, row.estimate(metric), row.estimate(quality)) for row in task.rows]
    found = [(row, x, y) for row, x, y in found if x.value is not None and y.value is not None]
    if len(found) < 2:
        return None
    with figure(4.9, 4.0) as (fig, ax):
        for row, x, y in found:
            error = {"xerr": _error(x), "yerr": _error(y)}
            marker = {"marker": "D", "mfc": "none", "color": GREY, "ms": 6} if row.reference else \
                     {"marker": "o", "color": BLUE, "ms": 6}
            ax.errorbar(x.value, y.value, **error, elinewidth=1, capsize=0, linestyle="none", zorder=3, **marker)
            if row.name == "base":
                ax.axhline(y.value, color=GREY, linewidth=0.7, linestyle=(0, (4, 4)), zorder=1)
            if row.name == "oracle":
                ax.axvline(x.value, color=GREY, linewidth=0.7, linestyle=(0, (4, 4)), zorder=1)
        scale = _log_if_wide(ax, [x.value for _, x, _ in found])
        ax.margins(0.12)
        ax.set_xlabel(label + scale)
        ax.set_ylabel(quality_label)
        whiskers = [(x.lo, y.value, x.hi, y.value) for _, x, y in found if x.lo is not None and x.lo > 0]
        whiskers += [(x.value, y.lo, x.value, y.hi) for _, x, y in found if y.lo is not None]
        place_labels(fig, ax, [(x.value, y.value, row.name) for row, x, y in found], whiskers)
        title = f"Scatter plot: {quality_label} against {label}"
        return inline_svg(fig, f"{task.name}-pareto-{metric}-{quality}", title)


def _error(item: object) -> np.ndarray | None:
    """Distances to the interval's ends [2,1], never negative; None without an interval."""
    return None if item.lo is None else np.maximum([[item.value - item.lo], [item.hi - item.value]], 0)


def read_training(row: Row) -> list[tuple[int, list[dict[str, str]]]]:
    """(seed, records of training.csv) of a row's cells; a row whose method logs no loss has none."""
    logs = []
    for cell in row.cells:
        path = cell.folder / "training.csv"
        if cell.absent:
            continue
        if not path.exists():
            raise UserError(f"cell {cell.folder}: {path} is missing")
        with open(path, encoding="utf-8", newline="") as handle:
            log = list(csv.DictReader(handle))
        if any(name.startswith("loss") for name in log[0]):
            logs.append((cell.seed, log))
    return logs


def curves(task: Task, across: int = 4) -> str | None:
    """One panel a row: its named losses by step (thin: logged; thick: running mean), first seed -> inline SVG."""
    unlearned = [row for row in task.rows if not row.reference]
    found = [(row, logs[0][1]) for row in unlearned if (logs := read_training(row))]
    if not found:
        return None
    names = [name for name in dict.fromkeys(name for _, log in found for name in log[0]) if name.startswith("loss")]
    colours = dict(zip(names, (BLUE, ORANGE, GREEN), strict=False))
    down = -(-len(found) // across)
    with figure(10.4, 2.1 * down + 0.4, nrows=down, ncols=across, squeeze=False, sharex=False) as (fig, axes):
        for ax, (row, log) in zip(axes.flat, found, strict=False):
            step = np.array([float(record["step"]) for record in log])
            for name in (name for name in colours if log[0].get(name)):
                values = np.array([float(record[name]) for record in log])
                ax.plot(step, values, color=colours[name], linewidth=0.6, alpha=0.35)
                ax.plot(step, running_mean(values), color=colours[name], linewidth=1.6)
            low, high = ax.get_ylim()
            if low > 0 and high > 30 * low or low <= 0 and max(-low, high) > 1e3:
                ax.set_yscale("log" if low > 0 else "symlog")
            ax.set_title(row.name)
            ax.tick_params(labelsize=8)
        for ax in list(axes.flat)[len(found):]:
            ax.axis("off")
        for ax in axes[-1]:
            ax.set_xlabel("step", fontsize=9)
        lines = [fig.axes[0].plot([], [], color=colour, linewidth=2)[0] for colour in colours.values()]
        labels = [name.replace("_", " ") for name in colours]
        fig.legend(lines, labels, loc="outside upper left", ncols=3, frameon=False)
        return inline_svg(fig, f"{task.name}-training", "Training losses by step, one panel a row")


def running_mean(values: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Centred running mean over `share` of the points; the window shrinks at the ends."""
    half = max(1, int(len(values) * share / 2))
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def contact(task: Task) -> bytes:
    """The contact strip: base, every unlearning row, oracle; one noise per column; forget images framed -> PNG."""
    return strip(task, images.columns(task), images.hits)


def given(task: Task) -> bytes:
    """The same of a concept task under the prompts that unlearning was given; one prompt and noise per column."""
    _, first, texts = images.strata(task)[0]
    return strip(task, list(range(first, first + len(texts))))


def strip(task: Task, chosen: list[int], marked: Callable[[Task, np.ndarray], np.ndarray] | None = None) -> bytes:
    """Samples `chosen` of base, every unlearning row and oracle, one line a row; those `marked` says are framed."""
    rows = images.paired_rows(task)
    with figure(10.0, 0.56 * len(rows) + 0.2) as (fig, ax):
        for line, row in enumerate(rows):
            shown = np.asarray(images.samples(row)[chosen])
            marks = marked(task, shown) if marked else [False] * len(shown)
            for place, (image, mark) in enumerate(zip(shown, marks, strict=True)):
                box = (place + 0.03, place + 0.97, line + 0.97, line + 0.03)  # left, right, bottom, top
                ax.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255,
                          interpolation="nearest", extent=box)
                if mark:
                    ax.plot(np.take(box, [0, 1, 1, 0, 0]), np.take(box, [2, 2, 3, 3, 2]), color=ORANGE, linewidth=3)
        ax.set(xlim=(0, len(chosen)), ylim=(len(rows), 0), aspect="equal", xticks=[])
        ax.set_yticks(np.arange(len(rows)) + 0.5, [row.name for row in rows], fontsize=11)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        return png(fig)


def pareto_csv(tasks: list[Task]) -> str:
    """Headline metrics of the family `data`, one record a row that has both axes of the Pareto plot."""
    records = []
    for task in (task for task in tasks if task.family == "data"):
        for row in task.rows:
            values = {metric: row.estimate(metric).value for metric in HEADLINE["data"]}
            if values[QUALITY] is not None and values[NLL] is not None:
                records.append({"task": task.name, "row": row.name, **{name: number(v) for name, v in values.items()}})
    return to_csv(["task", "row", *HEADLINE["data"]], records)


def training_csvs(tasks: list[Task]) -> dict[str, str]:
    """File name -> table (step, loss) of each row's first seed, for DVC, which draws one curve a file.

    loss is the first one the method names: the retain loss, or the forget loss where there is no other (NegGrad).
    """
    tables = {}
    for task in tasks:
        for row in (row for row in task.rows if not row.reference):
            for _, log in read_training(row)[:1]:
                name = next(name for name in log[0] if name.startswith("loss"))
                records = [{"step": record["step"], "loss": record[name]} for record in log]
                tables[f"{task.name}-{row.name}.csv"] = to_csv(["step", "loss"], records)
    return tables
