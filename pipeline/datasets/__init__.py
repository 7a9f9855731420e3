"""The datasets: one file each; this table is the only list of them.

A dataset is a module with

    COLUMNS                                     the fields, in the order of the interim table
    download(folder, cache, *, mirror, ...)     put the raw files and manifest.json into `folder`
    read(folder, ledger, ...)                   raw files -> clean tables, in the order of the log

`read` yields Arrow tables with one column per field (see `schema.Column`), `label` (uint8) and, where
the data has them, `group` (string: whose rows form a group of gAUC), `time` (int64, seconds) and
`truth` (float64: the true click probability). It is row-wise: nothing in it is fitted. What it does
with corrupted records it writes into the ledger. The further keyword arguments of both functions are
the dataset's keys in params.yaml.
"""

from types import ModuleType

from pipeline.datasets import movielens_100k, synthetic

DATASETS: dict[str, ModuleType] = {
    "synthetic": synthetic,
    "movielens-100k": movielens_100k,
}
