"""Figures with reproducible bytes, in the report's style: as SVG inside the page, or as PNG."""

import contextlib
import io as textio
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

INK = "#0a0b0c"  # replaced by `currentColor` in the page, so that figures follow the light and the dark scheme
BLUE = "#2f86c6"  # this and the next three are told apart with the common colour deficiencies
ORANGE = "#d9691e"
GREEN = "#1d9a78"
GREY = "#8a8f98"
COLOURS = (BLUE, ORANGE, GREEN, "#8d5bc1", "#b03a5b", "#7a6a2f", GREY, "#5468b4")
MARKERS = "osD^v"
DASHED = (0, (4, 4))
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "palinode",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}


@contextlib.contextmanager
def figure(width: float, height: float, **grid: Any) -> Iterator[tuple[Any, Any]]:
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


def inline_svg(fig: Any, name: str, title: str) -> str:
    """The figure as an `<svg>` element for a page: no prolog, metadata or URL; ids prefixed; ink follows the text."""
    stream = textio.StringIO()
    fig.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    text = text.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def png(fig: Any, dpi: int = 110) -> bytes:
    stream = textio.BytesIO()
    fig.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def choose_mark(i: int) -> dict[str, str]:
    """Colour and marker of the i-th row of a figure; forty rows differ."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


def running_mean(values: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Centred running mean over `share` of the points; the window shrinks at the ends."""
    half = max(1, int(len(values) * share / 2))
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low = np.maximum(index - half, 0)
    high = np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)
