"""What the values of a table may be where they are read again, by somebody else's hand or version."""

from pathlib import Path
from typing import Annotated, Self

from annotated_types import Ge, Gt, Le, Len
from pydantic import Field, ValidationError, model_validator

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.common.ranges import Count, CountOrZero, NonNegative
from pipeline.config.settings import Condition
from pipeline.config.validation import Strict, explain
from pipeline.papers.exhibit import Block
from pipeline.papers.results import AGAIN

VALUES = "results.json"
Share = Annotated[float, Ge(0), Le(1)]
ROUNDING = 1e-6
Difference = Annotated[float, Ge(-1), Le(1)]


class _Figures(Strict):
    auc: Share | None
    logloss: NonNegative | None
    megabytes: NonNegative | None


class _Row(Strict):
    model: str
    value: str | None
    condition: Condition
    seeds: Count
    valid_auc: Share
    auc: Share
    of_splits: Annotated[list[Share], Len(1)]
    low: float | None
    high: float | None
    logloss: NonNegative
    weights: CountOrZero
    capped: CountOrZero
    dead: CountOrZero = 0
    megabytes: NonNegative
    published: _Figures


class _Claim(Strict):
    better: str
    worse: str
    condition: Condition
    published: Difference | None
    difference: Difference
    low: float
    high: float
    p: Share
    p_holm: Share
    verdict: Annotated[int, Ge(-1), Le(1)]


class _Optimum(Strict):
    condition: Condition
    model: str
    chosen: str
    paper: str
    difference: Difference
    low: float
    high: float
    p: Share


class _Log(Strict):
    log: str
    source: str
    splits: Annotated[list[str], Len(1)]
    test_over_train: Annotated[float, Gt(0)]
    rows: Annotated[list[_Row], Len(1)]
    claims: list[_Claim]
    optima: list[_Optimum] = Field(default_factory=list)  # by the rows of one split
    absent: dict[str, str] = Field(default_factory=dict)
    note: str = ""  # by hand, such as a default that was another one when these were trained

    @model_validator(mode="after")
    def _each_row_has_each_split(self) -> Self:
        for row in self.rows:
            if len(row.of_splits) != len(self.splits):
                raise ValueError(f"{row.model} has {len(row.of_splits)} AUCs for {len(self.splits)} splits")
            if abs(row.auc - sum(row.of_splits) / len(row.of_splits)) > ROUNDING:
                raise ValueError(f"the AUC of {row.model} is not the mean of its splits")
        return self

    @model_validator(mode="after")
    def _each_optimum_is_about_the_rows(self) -> Self:
        auc = {(row.condition, row.model, row.value): row.auc for row in self.rows}
        for test in self.optima:
            paper, chosen = (auc.get((test.condition, test.model, v)) for v in (test.paper, test.chosen))
            if paper is None or chosen is None or abs(test.difference - (paper - chosen)) > ROUNDING:
                told = f"{test.model} ({test.condition}), {test.paper} less {test.chosen},"
                raise ValueError(f"the difference of {told} is not that of the AUCs of the rows")
        return self

    @model_validator(mode="after")
    def _each_claim_is_about_the_rows(self) -> Self:
        auc = {(row.condition, row.model): row.auc for row in self.rows if row.value is None}
        for claim in self.claims:
            better, worse = (auc.get((claim.condition, label)) for label in (claim.better, claim.worse))
            if better is None or worse is None:  # which rows there may be is the exhibit's to say
                continue
            if abs(claim.difference - (better - worse)) > ROUNDING:
                told = f"{claim.better} > {claim.worse} ({claim.condition})"
                raise ValueError(f"the difference of {told} is not that of the AUCs of the rows")
        return self


class _Table(Strict):
    exhibit: str
    paper: str
    title: str
    logs: Annotated[list[_Log], Len(1)]


class _Weights(Strict):
    source: str
    capped: bool
    channels: list[str] | None
    before: dict[str, list[Share]]
    after: dict[str, list[Share]]


class _Attention(Strict):
    exhibit: str
    condition: Condition
    logs: Annotated[dict[str, _Weights], Len(1)]


def load(folder: Path) -> Block:
    """Read the values of a table or figure.

    Raises:
        PipelineError: the folder has none, or they are not what `paper@...` writes.
    """
    path = folder / VALUES
    if not path.is_file():
        raise PipelineError(f"{folder} has no {VALUES}: give folders such as data/papers/flsest-table-1")
    values = read_json(path)
    kind = _Attention if isinstance(values, dict) and isinstance(values.get("logs"), dict) else _Table
    try:
        kind.model_validate(values)
    except ValidationError as error:
        key, reason = explain(error, kind, values, "")
        raise PipelineError(f"{path}: {key + ': ' if key else ''}{reason}: {AGAIN}") from None
    found: Block = values
    return found
