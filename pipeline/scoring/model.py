"""A model that scores raw rows in memory."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch, Split
from pipeline.evaluate import calibration
from pipeline.preprocess.parse import chunk
from pipeline.preprocess.rejects import RejectLog
from pipeline.scoring.package import Package
from pipeline.scoring.reading import ROWS, Reading, to_table
from pipeline.split.vocabulary import ROWS_PER_CHUNK, Encoder, Ids, Index
from pipeline.train.predict import logits, needs_times

if TYPE_CHECKING:
    import pandas as pd

ROWS_PER_THREAD = 2048  # at a time, so that a layer's output stays in a core's cache; as `train.predict`
RAW, CALIBRATED = "raw_probability", "probability"
Scores = dict[str, NDArray[np.float32]]  # CALIBRATED and RAW (n,)


class Model:
    """A trained model with its preprocessing.

    Attributes:
        package: what it was made of.
        reading: how it reads raw columns; `reading.uses` names them.
    """

    def __init__(self, package: Package) -> None:
        self.package, self.network = package, package.network()
        self.timed = needs_times(self.network)
        self.reading = Reading(package.reading, package.vocabulary, timed=self.timed)
        if self.timed and self.reading.plan.time is None:
            raise PipelineError(
                f"{package.architecture} needs times, and its package names no column of them"
            )
        self._index = Index(package.vocabulary)
        self._checked: pa.Schema | None = None  # that of the last rows in memory, which could be read

    @property
    def columns(self) -> list[str]:
        """The raw columns that a row needs."""
        return list(self.reading.uses)

    @property
    def optional_columns(self) -> set[str]:
        """Those of them in which training saw rows without a value."""
        known = {entry["name"]: _may_be_missing(entry) for entry in self.package.vocabulary}
        return {
            column
            for column in self.columns
            if all(known[name] for name in self.reading.fields_of(column))
            and not self.reading.is_time(column)
        }

    def example(self) -> "pd.DataFrame":
        """Return two rows of values that training saw often, in the raw columns."""
        import pandas as pd

        entries = {entry["name"]: entry for entry in self.package.vocabulary}
        made = {column: self.reading.examples(column, entries) for column in self.columns}
        return pd.DataFrame(made)

    def predict(self, frame: Any, *, optional: bool = False) -> "pd.DataFrame":
        """Return `probability`, which is calibrated, and `raw_probability` of each row, float32.

        Args:
            frame: a DataFrame, an Arrow table, or a mapping of names to lists; further columns do not matter.
            optional: a column that is not there has missing values, and is no error.

        Raises:
            PipelineError: a column is not there or of another type, or a value is malformed: it names both.
        """
        import pandas as pd

        scores = self.scores(frame, optional=optional)
        index = frame.index if isinstance(frame, pd.DataFrame) else None
        return pd.DataFrame(np.column_stack(list(scores.values())), index=index, columns=self._outputs)

    def scores(self, frame: Any, *, optional: bool = False) -> Scores:
        """Do what `predict` does, without pandas: return an array (n,) of each probability by its name."""
        clean = self._clean(frame, optional=optional)
        return self.score(clean, self.encode(clean))

    def rows(self, frame: Any, label: Any = None) -> Split:
        """Return raw rows as the network reads them, for `pipeline.explain`.

        Args:
            frame: as of `predict`.
            label: of each row, 0 or 1 (n,); without it all are 0.

        Raises:
            PipelineError: as `predict`, or the labels are others.
        """
        clean = self._clean(frame)
        clicks = np.zeros(len(clean)) if label is None else np.asarray(label)
        if len(clicks) != len(clean) or not np.isin(clicks, (0, 1)).all():
            raise PipelineError(
                f"{len(clicks)} labels of {len(clean)} rows: give one per row, 0 or 1, such as "
                'frame["event"] == "buy"'
            )
        return self.encoded(clean, clicks)

    def encoded(self, clean: pa.Table | pa.RecordBatch, clicks: NDArray[Any]) -> Split:
        """Return clean rows as the network reads them, with their labels (n,)."""
        time = torch.tensor(clean["time"].to_numpy()) if self.timed else None
        label = torch.from_numpy(clicks.astype(np.float32))
        return Split(self.package.schema, torch.from_numpy(self.encode(clean)), label, time)

    def _clean(self, frame: Any, *, optional: bool = False) -> pa.RecordBatch:
        """Return the fields of raw rows, all of which must be well-formed."""
        table = to_table(frame, self.columns, optional=optional)
        if table.schema != self._checked:  # requests of one client are alike
            self.reading.check(dict(zip(table.column_names, table.schema.types, strict=True)), "the rows")
            self._checked = table.schema
        rejects = RejectLog()
        rejects.count(ROWS, len(table))
        clean, good = self.reading.clean(table, np.arange(1, len(table) + 1), ROWS, rejects)
        if not good.all():
            raise PipelineError(
                f"{(~good).sum()} of {len(good)} rows cannot be scored: " + "; ".join(rejects.first)
            )
        return clean

    @cached_property
    def _outputs(self) -> "pd.Index":
        import pandas as pd

        return pd.Index([CALIBRATED, RAW])

    def encode(self, clean: pa.Table | pa.RecordBatch) -> Ids:
        """Return the ids (n, S) of clean rows."""
        few = len(clean) <= ROWS_PER_CHUNK
        encoder = Encoder(self.package.vocabulary, lambda name: [chunk(clean[name])], self._index, few=few)
        parts = list(encoder.ids(0, clean))
        return np.concatenate(parts) if parts else np.empty((0, encoder.schema.slots), np.int32)

    @torch.inference_mode()
    def score(self, clean: pa.RecordBatch, ids: Ids) -> Scores:
        """Return the probabilities of clean rows, whose ids are given."""
        time = torch.tensor(clean["time"].to_numpy()) if self.timed else None
        rows = Batch(torch.from_numpy(ids), torch.zeros(len(ids)), time)
        size = ROWS_PER_THREAD * torch.get_num_threads()
        if 0 < len(ids) <= size:
            found = logits(self.network, rows).float()
        else:
            batches = (rows.rows(slice(start, start + size)) for start in range(0, len(ids), size))
            found = torch.cat([torch.empty(0), *(logits(self.network, batch).float() for batch in batches)])
        raw = found.sigmoid().numpy()
        if self.package.calibration == {"method": "none"}:  # computed twice they differ in the last digit
            return {CALIBRATED: raw, RAW: raw}
        calibrated = calibration.apply(self.package.calibration, found.numpy())
        return {CALIBRATED: calibrated.astype(np.float32), RAW: raw}


def _may_be_missing(entry: dict[str, Any]) -> bool:
    """Whether a field has a place for a row without a value."""
    if entry["kind"] == "category":
        return None in entry["values"]
    return entry["kind"] == "bag" or bool(entry["missing"])


def load(folder: str | Path) -> Model:
    """Return the model of a package.

    Raises:
        PipelineError: the folder is no package, or a file of it was changed.
    """
    return Model(Package.read(Path(folder)))
