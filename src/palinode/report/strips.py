"""Strips of samples: one line a row, one initial noise a column."""

from typing import Any

import numpy as np

from palinode.report import figures, pictures
from palinode.report.collect import Task


def draw_contact(task: Task) -> bytes:
    """The contact strip of an images task, copies of a forget image framed -> PNG."""
    chosen = pictures.choose_samples(task)
    return draw_strip(task, chosen, marked=True)


def draw_prompt_set(task: Task, first: int, count: int) -> bytes:
    """The same of one prompt set of a concept task, whose samples begin at index `first`; one prompt a column."""
    return draw_strip(task, list(range(first, first + count)))


def draw_strip(task: Task, chosen: list[int], marked: bool = False) -> bytes:
    """Samples `chosen` of base, every unlearning row and oracle, one line a row -> PNG; marked: frame copies."""
    rows = pictures.list_paired_rows(task)
    with figures.figure(10.0, 0.56 * len(rows) + 0.2) as (fig, ax):
        for line, (_, samples) in enumerate(rows):
            shown = np.asarray(samples[chosen])
            hits = pictures.find_hits(task, shown) if marked else np.zeros(len(shown), dtype=bool)
            for place, image in enumerate(shown):
                draw_image(ax, image, place, line, framed=bool(hits[place]))
        ax.set(xlim=(0, len(chosen)), ylim=(len(rows), 0), aspect="equal", xticks=[])
        ax.set_yticks(np.arange(len(rows)) + 0.5, [row.name for row, _ in rows], fontsize=11)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        return figures.png(fig)


def draw_image(ax: Any, image: np.ndarray, place: int, line: int, framed: bool) -> None:
    """One image [H,W,C] in a field of the strip, with an orange frame where it is a copy."""
    left = place + 0.03
    right = place + 0.97
    top = line + 0.03
    bottom = line + 0.97
    grey = image.shape[-1] == 1
    ax.imshow(
        image[..., 0] if grey else image,
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="nearest",
        extent=(left, right, bottom, top),
    )
    if framed:
        across = [left, right, right, left, left]
        down = [bottom, bottom, top, top, bottom]
        ax.plot(across, down, color=figures.ORANGE, linewidth=3)
