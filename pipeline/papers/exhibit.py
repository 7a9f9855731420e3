"""What a table or figure of a paper shows, and what the paper says about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Block = dict[str, Any]
Kind = Literal["table", "sweep", "attention"]


# of a paper's training what it does not say, so that nothing of it is the user's; `batch` in the place of a
# regularizer on whole tables moves FLSEST's AUC on MovieLens-100K by less than .0001 (LOG.md, 2026-12-01)
UNSAID: Block = {
    "monitor": "logloss",
    "lr_patience": 0,
    "l2_tables": "batch",
    "grades": 0.0,
    "clip_norm": 10.0,
    "lr_factor": 0.1,
    "evaluations_per_epoch": 1,
}


class Figures(NamedTuple):
    """Published figures of a model on a dataset; None where the paper does not print one."""

    auc: float | None = None
    logloss: float | None = None
    megabytes: float | None = None


@dataclass(frozen=True)
class Row:
    """One model of a table.

    Attributes:
        label: what the paper calls it.
        model: our model or variant, a block under `model:` in params.yaml.
        published: its figures by source, such as movielens-100k.
    """

    label: str
    model: str
    published: Mapping[str, Figures] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """The paper says that one row has the higher AUC."""

    better: str
    worse: str


@dataclass(frozen=True)
class Sweep:
    """One option through several values.

    Attributes:
        option: `model.<argument>` or `train.<argument of fit>`.
        values: in their order; what params.yaml would say.
        names: of the values, for the axis.
        best: the position of the value that the paper finds best; None if it does not say.
        rows: those whose AUC is shown.
        axis: what the values are; the option's name if nothing is said.
    """

    option: str
    values: tuple[Any, ...]
    names: tuple[str, ...]
    best: int | None = None
    rows: Literal["validation", "test"] = "test"
    axis: str = ""

    @property
    def what(self) -> str:
        """What the values are called on the axis and in the table."""
        return self.axis or self.option.partition(".")[2]

    @property
    def key(self) -> str:
        """Where results have that AUC."""
        return {"validation": "valid_auc", "test": "auc"}[self.rows]


@dataclass(frozen=True)
class Ours:
    """Options that every model of an exhibit has in the place of our defaults.

    Attributes:
        options: of a model's block in params.yaml.
        why: a sentence of the page.
    """

    options: Mapping[str, Any]
    why: str


@dataclass(frozen=True)
class Exhibit:
    """A table or figure.

    Attributes:
        name: its target.
        title: of its page.
        paper: which paper, and which table or figure.
        sources: the datasets that the paper shows, the sources of our entries. Others are shown if asked for.
        rows: the models.
        settings: what the paper trained with on a source: `settings` of a dataset entry.
        seed: of the paper's split and training; ours are in params.yaml.
        claims: what the paper concludes.
        controls: labels of rows that are ours, so that a claim about one is ours, too.
        notes: what cannot be compared, and why.
        assumed: what the paper does not say of its settings, and where ours come from.
        sweep: for a figure over the values of one option.
        ours: what every model has in the place of our defaults, and why.
        attention: for the figure of FiiNet's attention before and after training.
    """

    name: str
    title: str
    paper: str
    sources: tuple[str, ...]
    rows: tuple[Row, ...]
    settings: Callable[[str], Block]
    claims: tuple[Claim, ...] = ()
    controls: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    sweep: Sweep | None = None
    ours: Ours | None = None
    attention: bool = False

    def is_ours(self, claim: Claim) -> bool:
        """Whether the paper does not make this claim."""
        return not {claim.better, claim.worse}.isdisjoint(self.controls)
