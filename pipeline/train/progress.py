"""What a person sees of a training while it runs."""

from tqdm import tqdm

from pipeline.train.checkpoint import State


def progress_bar(name: str | None, total: int, done: int) -> tqdm:
    """A progress bar on a terminal, nothing in a log file."""
    off = True if name is None else None  # None: off unless on a terminal
    units = {"unit": " rows", "unit_scale": True}
    return tqdm(desc=name, total=total, initial=done, **units, dynamic_ncols=True, leave=False, disable=off)


def summary(state: State) -> str:
    """Return where a training stands, in a few words."""
    last, best = state.curve[-1], state.curve[state.best]
    if "valid_auc" not in last:  # see `Refit`
        return f"epoch {last['epoch']:g}, train logloss {last['train_logloss']:.4f}"
    return (
        f"epoch {last['epoch']:g}, valid AUC {last['valid_auc']:.4f} "
        f"(best {best['valid_auc']:.4f} at {best['epoch']:g})"
    )
