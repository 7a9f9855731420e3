"""The table of datasets, and the signatures of their functions."""

import inspect
from pathlib import Path

import pytest

from pipeline.datasets import DATASETS
from pipeline.preprocess import clean_table

FILES = {path.stem for path in Path(inspect.getfile(DATASETS["synthetic"])).parent.glob("*.py")} - {
    *("__init__", "generated"),  # what the generated logs share
}


def test_every_dataset_file_is_in_the_table_and_every_entry_is_a_dataset():
    assert {source.__name__.rpartition(".")[2] for source in DATASETS.values()} == FILES
    assert len({id(source) for source in DATASETS.values()}) == len(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_the_options_of_a_dataset_can_be_given_in_params(name: str):
    source = DATASETS[name]
    assert source.__doc__
    for function, first in ((source.download, ["folder", "cache"]), (source.read, ["folder", "rejects"])):
        parameters = inspect.signature(function).parameters
        assert list(parameters)[:2] == first
        options = list(parameters.values())[2:]
        assert all(option.kind is option.KEYWORD_ONLY for option in options)
        assert all(option.annotation is not option.empty for option in options)
        assert inspect.getdoc(function)
    assert "mirror" in inspect.signature(source.download).parameters
    assert inspect.signature(source.read).return_annotation is clean_table.ClickLog
