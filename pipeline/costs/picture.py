"""What the models cost as a picture: AUC against each price, and the models that are worth it."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from pipeline.costs.report import PRICES, Row, front
from pipeline.evaluate.plot_style import COLOURS, GREY, PLAIN, SLATE, styled, titled_figure


@styled
def prices(found: Sequence[Row], dataset: str) -> Figure:
    """Test AUC against time of a training, time of scoring and parameters, with the best for each price."""
    best, cheapest = found[0], front(found, "training")[0]
    times = f"{best.training / cheapest.training:.3g}"
    title = f"{best.model} is best, for {times} times the training of {cheapest.model}"
    if best is cheapest:
        title = f"{best.model} is best and cheapest to train"
    figure = titled_figure(
        3.1,
        title,
        f"{dataset}: test AUC of the better variant of each model against its price\n"
        "blue: no other model has a higher AUC for at most this price",
    )
    for number, (ax, price) in enumerate(
        zip(figure.subplots(1, len(PRICES), sharey=True), PRICES, strict=True)
    ):
        _panel(ax, found, price)
        if not number:
            ax.set_ylabel("test AUC")
    return figure


def _panel(ax: Axes, found: Sequence[Row], price: str) -> None:
    kept = front(found, price)
    for row in found:
        ax.plot(getattr(row, price), row.auc, "o", color=COLOURS[0] if row in kept else GREY, markersize=5)
    steps = [(getattr(row, price), row.auc) for row in kept]
    ax.step(*zip(*steps, strict=True), where="post", color=COLOURS[0], linewidth=1)
    for row in kept:
        ax.annotate(
            row.model,
            (getattr(row, price), row.auc),
            (-3, 4),
            textcoords="offset points",
            ha="right",
            color=SLATE,
            size=8,
        )
    ax.set_xscale("log")
    ax.margins(x=0.25, y=0.12)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(PLAIN)
    ax.set_title(PRICES[price])
