"""How the pictures of a report look: style, colours, and a figure with a title and panels.

Nothing but the values decides a picture's bytes: no window system, the font that comes with matplotlib, a
fixed resolution, and no version or time in the file.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image

from pipeline.evaluate.report import BASELINE
from pipeline.evaluate.runs import Run
from pipeline.models import MODELS

# Okabe and Ito's colours, which can be told apart with colour blindness. Slate is the baseline's; where
# there are more models than colours, the weaker ones are light and have no label.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SLATE, GREY, OTHER, LIGHT, TEXT = "#4A525C", "#8E959F", "#CDD2D8", "#E4E7EB", "#22272E"
DASHED: Any = (0, (4, 3))
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": TEXT,
    "text.parse_math": False,  # names of fields may have dollar signs
    "axes.labelcolor": SLATE,
    "axes.labelsize": 8.5,
    "axes.edgecolor": "#B6BCC4",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": LIGHT,
    "grid.linewidth": 0.7,
    "xtick.color": SLATE,
    "ytick.color": SLATE,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8,
}
WIDTH_INCHES, DOTS_PER_INCH = 9.0, 150
FREQUENT, PALETTE = 64, 96  # colours of a picture: the most frequent ones, and all
_PLACES = np.array([1 << 16, 1 << 8, 1], np.int32)  # of red, green and blue in a number
HEAD_INCHES = 0.75  # title and subtitle
TITLE_SIZE, TITLE_LETTERS = 12.0, 86  # as many fit; a longer title is smaller
styled = style.context(["default", STYLE])  # whatever the user's own matplotlibrc says
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


@styled
def save(figure: Figure, path: Path) -> None:
    """Write a PNG of few colours, whose bytes depend on the figure alone."""
    FigureCanvasAgg(figure)
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once: a second pass would end a fraction of a pixel away
        pixels = np.tile(figure.get_size_inches() * DOTS_PER_INCH, 2)
        for axes in figure.axes:  # on whole pixels: the solver's last digits are not the same every time
            axes.set_position(np.round(np.array(axes.get_position().bounds) * pixels) / pixels)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    with_palette(Image.open(drawn).convert("RGB")).save(path, "PNG", optimize=True)


def with_palette(image: Image.Image) -> Image.Image:
    """Return a picture in few colours, a quarter of the bytes: areas and lines stay the same.

    They are the most frequent ones, and of the others, one by one, the one that is farthest from all that
    are chosen: a few small dots have a colour that is not frequent. The rest, the rims of letters and lines,
    get the nearest of them. (Pillow's own choice changes white.)
    """
    pixels = np.asarray(image).astype(np.int32) @ _PLACES  # a number a colour: far faster to sort
    numbers, place, count = np.unique(pixels, return_inverse=True, return_counts=True)
    colours = numbers[:, None] // _PLACES % 256
    chosen = np.argsort(-count, kind="stable")[:FREQUENT].tolist()
    apart = _apart(colours, colours[chosen]).min(1)
    while len(chosen) < PALETTE and apart.any():
        chosen.append(int(apart.argmax()))
        apart = np.minimum(apart, _apart(colours, colours[chosen[-1:]])[:, 0])
    palette = colours[chosen]
    nearest = _apart(colours, palette).argmin(1).astype(np.uint8)
    small = Image.fromarray(nearest[place].reshape(pixels.shape), "P")
    small.putpalette(palette.astype(np.uint8).tobytes())
    return small


def _apart(colours: NDArray[np.int32], others: NDArray[np.int32]) -> NDArray[np.integer[Any]]:
    """Squared distances, (C, O) of (C, 3) and (O, 3)."""
    distances: NDArray[np.integer[Any]] = np.square(colours[:, None] - others).sum(2)
    return distances


def titled_figure(height: float, title: str, subtitle: str, keys: Sequence[Artist] = ()) -> Figure:
    """Return an empty figure with a title that says what one sees and a line on what is drawn.

    Args:
        height: inches below the head.
        keys: of a legend in one line, on the right of the subtitle.
    """
    head = HEAD_INCHES + 0.16 * subtitle.count("\n")
    total = height + head
    layout = ConstrainedLayoutEngine(rect=(0.01, 0, 0.98, height / total), wspace=0.04)
    figure = Figure(figsize=(WIDTH_INCHES, total), facecolor="white", layout=layout)
    left, size = 0.18 / WIDTH_INCHES, TITLE_SIZE * min(1.0, TITLE_LETTERS / len(title))
    figure.text(left, 1 - 0.16 / total, title, size=size, weight="bold", va="top")
    figure.text(left, 1 - 0.44 / total, subtitle, size=8.5, color=SLATE, va="top", linespacing=1.35)
    if keys:
        legend = figure.legend(
            handles=list(keys),
            loc="upper right",
            bbox_to_anchor=(1 - 0.1 / WIDTH_INCHES, 1 - 0.4 / total),
            ncols=len(keys),
            handlelength=1.4,
            handletextpad=0.5,
            columnspacing=1.2,
            borderpad=0,
        )
        legend.set_in_layout(False)
    return figure


def panels(figure: Figure, count: int, heights: Sequence[float] = (1,)) -> list[list[Axes]]:
    """Fill a figure with equal cells in rows of at most five; return the axes of each cell, top to bottom.

    Args:
        heights: of a cell's axes, in shares of each other.
    """
    rows, columns = grid_shape(count)
    grid = figure.subplots(
        rows * len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": [*heights] * rows}
    )
    cells = []
    for i in range(rows * columns):
        row, column = divmod(i, columns)
        cell = [grid[row * len(heights) + k, column] for k in range(len(heights))]
        if column:
            cell[0].tick_params(labelleft=False)
        if i >= count:
            for ax in cell:
                ax.set_axis_off()
        cells.append(cell)
    return cells[:count]


def grid_shape(count: int) -> tuple[int, int]:
    """Return rows and columns for a number of cells.

    >>> grid_shape(2), grid_shape(4), grid_shape(6), grid_shape(42)
    ((1, 2), (1, 4), (2, 3), (9, 5))
    """
    columns = 5 if count > 8 or count == 5 else 4 if count > 6 or count == 4 else min(count, 3)
    return math.ceil(count / columns), columns


def name_panel(ax: Axes, name: str, text: str, colour: str) -> None:
    """Write a model's name above its panel, and a line below the name."""
    ax.set_title(f"   {name}", pad=15)  # names are dark, to be read; the colour is a dot before them
    ax.annotate("●", (0, 1), (0, 15), "axes fraction", textcoords="offset points", color=colour, size=9)
    ax.annotate(
        text, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", size=8, color=SLATE
    )


def coloured_legend(ax: Axes, ordered: Sequence[Artist], **options: Any) -> None:
    """Name artists in dark letters behind a piece of their lines: most colours are too light to be read."""
    ax.legend(handles=list(ordered), handlelength=0.9, handletextpad=0.5, borderpad=0, **options)


def epoch_axis(ax: Axes, longest: float) -> None:
    """Plain round numbers; a logarithmic axis with 1, 2, 5, 10 ... where trainings are long."""
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if longest > 12:
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ticks = [m * 10**e for e in range(-2, 4) for m in (1, 2, 5)]
        ax.set_xticks([tick for tick in ticks if low <= tick <= high])
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(PLAIN)


def round_ticks(top: float) -> list[float]:
    """Return four or five round marks from zero to `top`."""
    step = next(s for s in (0.05, 0.1, 0.2, 0.25, 0.5) if top / s <= 4.01 or s == 0.5)
    return [round(step * i, 4) for i in range(int(top / step + 1e-9) + 1)]


def colours_of(runs: Sequence[Run], other: str = OTHER) -> dict[str, str]:
    """Return a colour per model; `other` where there are not enough colours.

    The strongest models have colours, each its own one in every report unless a stronger one has taken it.
    """
    ranked = list(dict.fromkeys(run.model for run in sorted(runs, key=lambda run: run.rank)))
    free, names = list(COLOURS), list(MODELS)
    found = dict.fromkeys(ranked, other) | {BASELINE: SLATE}
    for model in [model for model in ranked if model != BASELINE][: len(COLOURS)]:
        place = names.index(model) if model in names else crc32(model.encode())
        own = COLOURS[(place - 1) % len(COLOURS)]
        found[model] = own if own in free else free[0]
        free.remove(found[model])
    return found
