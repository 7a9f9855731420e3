"""The blocks of params.yaml as types, and what is made of them for one model on one dataset."""

from typing import Annotated, Any, Literal

from annotated_types import Gt, Le, Len
from pydantic import AfterValidator, BaseModel, Field

from pipeline.common.errors import PipelineError
from pipeline.common.ranges import Count, NonNegative, Positive, Seed, Share, TwoOrMore
from pipeline.config.space import Block, Dimension, Tune
from pipeline.config.validation import Strict


def _distinct(seeds: list[int]) -> list[int]:
    """Refuse a seed that is named twice: it would count twice in means and make deviations too small."""
    if len(set(seeds)) < len(seeds):
        raise ValueError("should name each seed once")
    return seeds


class Settings(Strict):
    """What a dataset changes in the blocks `model`, `train` and `tune`."""

    model: Block = Field(default_factory=dict)
    train: Block = Field(default_factory=dict)
    tune: Block = Field(default_factory=dict)


class Dataset(Strict):
    """An entry of `data`: a source, the arguments of each stage, and the dataset's own settings.

    All blocks are required, empty or not: each is a dependency of a stage in dvc.yaml.

    Attributes:
        negatives_kept: the share of the rows without a click that the log kept, if it was thinned out.
    """

    source: str
    download: Block
    preprocess: Block
    split: Block
    encode: Block
    settings: Settings
    negatives_kept: Annotated[float, Gt(0), Le(1)] = 1.0


class Execution(Strict):
    """What a training needs besides the keyword arguments of `train.loop.fit`.

    Attributes:
        refit: whether each run is repeated on train + validation rows at its end; see `train/refit.py`.
        tables: `whole` in each process, or sharded over those of torchrun; see `train/sharded.py`.
        tables_lr: learning rate of sharded tables.
    """

    seeds: Annotated[list[Seed], Len(1), AfterValidator(_distinct)]
    device: str = "auto"
    threads: Count
    rows_in_memory: Count
    refit: bool = False
    tables: Literal["whole", "row_wise", "table_wise"] = "whole"
    tables_lr: Positive = 0.02

    @property
    def sharded(self) -> Block | None:
        """Return the arguments of `train.sharded.Tables`; None for whole tables."""
        return None if self.tables == "whole" else {"sharding": self.tables, "lr": self.tables_lr}

    def require_whole_tables(self, what: str) -> None:
        """Refuse sharded tables.

        Raises:
            PipelineError: tables are sharded.
        """
        if self.tables != "whole":
            raise PipelineError(
                f"train.tables: {self.tables}: {what} trains whole tables, only the stage `train` shards "
                "them: set `tables: whole`"
            )


class Train(Execution):
    """How every training runs: also the keyword arguments of `train.loop.fit`."""

    fit: Block


class Evaluate(Strict):
    """Settings of the test report.

    Attributes:
        bins: of the calibration error.
        blend: models that run, whose logits are averaged with equal weights, and with weights chosen on
            validation rows; see `evaluate/blend.py`. None for no blends.
    """

    bins: TwoOrMore = 20
    blend: list[str] = Field(default_factory=list)


Condition = Literal["published", "default", "tuned"]


class Paper(Strict):
    """How tables and figures of the papers are made again: see `pipeline/papers/`.

    Attributes:
        conditions: as the paper trained, by our defaults, by a search with the budget of `tune`.
        other_datasets: whether entries of `datasets` that the paper did not use are shown, too.
    """

    conditions: Annotated[list[Condition], Len(1)] = ["published", "tuned"]  # noqa: RUF012  pydantic copies it
    other_datasets: bool = False


class Watch(Strict):
    """How much a new log may change before `watch` raises an alarm, beyond what chance does.

    Attributes:
        rejected: share of rows that cannot be read.
        unseen: by how much the share of a field's values that training did not see may grow.
        missing: by how much the share of rows without a value in a field may change.
        psi: population stability index of a field, and of the predictions.
        label_rate: relative change of the label rate.
        auc, logloss, ece: by how much each may be worse than on the test rows.
    """

    rejected: Share = 0.001
    unseen: Share = 0.05
    missing: Share = 0.05
    psi: NonNegative = 0.1
    label_rate: NonNegative = 0.2
    auc: NonNegative = 0.02
    logloss: NonNegative = 0.03
    ece: NonNegative = 0.02


class File(Strict):
    """The blocks of params.yaml. Those that are `Block`s are checked against signatures."""

    datasets: Annotated[list[str], Len(1)]
    models: Annotated[list[str], Len(1)]
    variants: list[str] = Field(default_factory=list)
    papers: list[str] = Field(default_factory=list)
    mirror: str | None = None
    processes: Any = "auto"
    engine: Literal["local", "ray"] = "local"
    studies: str | None = None
    data: dict[str, Any]  # each a `Dataset`; checked one by one, so that one need not stop the others
    model: dict[str, Block]
    train: Block
    tune: Block
    evaluate: Evaluate = Evaluate()
    paper: Paper = Paper()
    watch: Watch = Watch()


class Config(BaseModel):
    """What one model is trained and tuned with on one dataset.

    Attributes:
        architecture: the model's name in `MODELS`; of a variant its `base`.
        model: keyword arguments of the model's constructor, as params.yaml spells them.
        paper: the same where params.yaml says nothing: the constructor's own defaults, which are the paper's,
            and what makes a variant one.
        train: seeds, device, threads, rows in memory and the keyword arguments of `train.loop.fit`.
        tune: budget and sampler.
        space: the axes this model has, by dotted name (`model.embedding_size`, `train.lr`).
        file: where all of it was read.
        place: the blocks of the file that the model's arguments come from, and the dataset.
    """

    architecture: str
    model: Block
    paper: Block
    train: Train
    tune: Tune
    space: dict[str, Dimension]
    file: str
    place: str

    def where(self, point: Block | None = None) -> str:
        """Return where these settings and a point of the search come from, for errors."""
        start = self.start
        tried = [f"{name} {value}" for name, value in (point or {}).items() if value != start[name]]
        searched = f"tune.space ({', '.join(tried)}), " if tried else ""
        return f"{self.file}: {searched}{self.place}"

    @property
    def start(self) -> Block:
        """The default value of every axis: the first trial."""
        blocks = {"model": self.model, "train": self.train.fit}
        return {name: blocks[name.split(".")[0]][name.split(".")[1]] for name in self.space}

    @property
    def starts(self) -> list[Block]:
        """The first trials: the default and, unless switched off or the same, the paper's configuration.

        The latter has the paper's options of the model, each at the nearest point of its axis, and the
        default's settings of the training, which papers seldom give.
        """
        start = self.start
        paper = {
            name: axis.nearest(self.paper[name.split(".")[1]]) if name.startswith("model.") else start[name]
            for name, axis in self.space.items()
        }
        return [start, paper] if self.tune.paper_start and paper != start else [start]

    def at(self, point: Block) -> tuple[Block, Block]:
        """Return (model, fit) keyword arguments at a point of the search space."""
        model, train = dict(self.model), dict(self.train.fit)
        for name, value in point.items():
            block, key = name.split(".")
            (model if block == "model" else train)[key] = value
        return model, train
