"""params.yaml: every wrong key and value is named; settings of a dataset win; the space fits the model."""

from copy import deepcopy
from math import inf, nan
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import __main__ as command
from pipeline import models
from pipeline.common.errors import PipelineError
from pipeline.config import plan, yaml_file
from pipeline.config.keys import SYNONYMS
from pipeline.config.params import Params, keywords, load, of_model
from pipeline.config.settings import Execution
from pipeline.config.space import Dimension, Tune
from pipeline.data.batches import ROWS_IN_MEMORY
from pipeline.split.assign import assign
from pipeline.train.adam import parameter_groups
from pipeline.train.loop import fit
from tests import project
from tests.rows import SCHEMAS

ROOT = Path(__file__).parent.parent


@pytest.fixture(name="values")
def _values() -> dict[str, Any]:
    return project.own_params()


def put(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of `values` with one dotted key set."""
    values = deepcopy(values)
    *parents, last = path.split("/")
    block = values
    for key in parents:
        block = block.setdefault(key, {})
    block[last] = value
    return values


def test_the_projects_own_file_is_valid(values: dict[str, Any]) -> None:
    params = Params(values)
    assert params.data.keys() == values["data"].keys()
    for dataset in params.data:
        for model in params.models:
            config = params.config(dataset, model)
            assert config.train.seeds, dataset
            assert set(config.start) == set(config.space)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("datasets", ["syntetic"], r"datasets: unknown dataset 'syntetic'; did you mean 'synthetic'"),
        ("datasets", [], r"datasets"),
        ("models", ["depfm"], r"models: unknown model 'depfm'; did you mean 'deepfm'"),
        ("models", ["fm", "fm"], r"models: names 'fm' twice"),
        ("paper", {"conditions": ["tuned", "tuned"]}, r"paper\.conditions: names 'tuned' twice"),
        ("evaluate/blend", ["fm", "fm"], r"evaluate\.blend: names 'fm' twice"),
        (
            "model/fm/embeding_size",
            8,
            r"model\.fm: unknown key 'embeding_size'; did you mean 'embedding",
        ),
        ("model/fm/embedding_size", "8", r"model\.fm\.embedding_size: .*int.*'8'"),
        ("model/fm/embedding_size", 0, r"model\.fm\.embedding_size: must be at least 1"),
        ("model/fm/embedding_dropout", 1.0, r"model\.fm\.embedding_dropout: must be at least 0 and at most"),
        ("model/deepfm/hidden", [-3], r"model\.deepfm\.hidden\.0: must be at least 1 \(it is -3\)"),
        ("model/deepfm/hidden", [64, 2.5], r"model\.deepfm\.hidden\.1: .*integer \(it is 2\.5\)"),
        ("model/deepfm/hidden", 64, r"model\.deepfm\.hidden: should be a list \(it is 64\)"),
        (
            "model/fm/embedding_std",
            inf,
            r"model\.fm\.embedding_std: must be a finite number and at least 0 \(it is inf\)",
        ),
        ("model/fiinet/fusion", "add", r"model\.fiinet\.fusion: .*'concat'"),
        ("model/fm", 3, r"model\.fm: should be a block of keys"),
        ("train/lr", -1.0, r"train\.lr: must be above 0"),
        ("train/lr", nan, r"train\.lr: must be a finite number and above 0 \(it is nan\)"),
        ("train/lr", inf, r"train\.lr: must be a finite number and above 0 \(it is inf\)"),
        ("train/lr_factor", 2, r"train\.lr_factor: must be above 0 and at most 1 \(it is 2\)"),
        ("train/seeds", [1, -1], r"train\.seeds\.1: must be at least 0"),
        ("train/seeds", [1, 1], r"train\.seeds: should name each seed once"),
        ("train/seeds", [3_000_000_000], r"train\.seeds\.0: must be at least 0 and at most 2147483647"),
        ("tune/seed", -3, r"tune\.seed: must be at least 0"),
        ("tune/seed", 2**40, r"tune\.seed: .* at most 2147483647"),
        ("data/synthetic/download/seed", -1, r"download\.seed: must be at least 0"),
        ("train/lr", "fast", r"train\.lr: .*number.*'fast'"),
        ("train/batchsize", 8, r"train: unknown key 'batchsize'; did you mean 'batch_size'"),
        ("train/seeds", [], r"train\.seeds"),
        ("train/threads", 0, r"train\.threads"),
        ("train/rows_in_memory", 0, r"train\.rows_in_memory: .* \(it is 0\)"),
        ("train/thread", 1, r"train: unknown key 'thread'; did you mean 'threads'"),
        ("train/rows_in_memry", 5, r"train: unknown key 'rows_in_memry'; did you mean 'rows_in_memory'"),
        (
            "data/synthetic/settings/train/precision",
            "fp8",
            r"data\.synthetic\.settings\.train\.precision: ",
        ),
        ("data/synthetic/settings/train/lazy_rows", 0, r"data\.synthetic\.settings\.train\.lazy_rows: "),
        ("data/synthetic/settings/train/threads", 0, r"data\.synthetic\.settings\.train\.threads: "),
        ("train/rows_in_memory", "all", r"train\.rows_in_memory"),
        ("processes", 0, r"processes: must be `auto` or a positive integer \(it is 0\)"),
        ("processes", "many", r"processes: must be `auto` or a positive integer .*'many'"),
        ("processes", True, r"processes: must be `auto` or a positive integer .*True"),
        ("tune/trials", 0, r"tune\.trials"),
        ("tune/trails", 3, r"tune: unknown key 'trails'; did you mean 'trials'"),
        ("data/synthetic/settings/tune/trails", 3, r"data\.synthetic\.settings\.tune: unknown key 'trails'"),
        ("tune/space/model/droput", {"choices": [1]}, r"tune\.space\.model: unknown key 'dro"),
        (
            "tune/space/model/fm",
            {"hidden": {"choices": [1]}},
            r"tune\.space\.model\.fm: unknown key 'hidden'",
        ),
        ("tune/space/train/lr", {"low": 2.0, "high": 1.0}, r"tune\.space\.train\.lr: .*low"),
        (
            "tune/space/train/lr",
            {"low": 0.5, "high": 1.0},
            r"tune\.space\.train\.lr: does not contain",
        ),
        (
            "tune/space/model/embedding_size",
            {"choices": [16, 0]},
            r"tune\.space\.model\.embedding_size\.choices\.1: must be at least 1 \(it is 0\)",
        ),
        (
            "tune/space/model/deepfm",
            {"hidden": {"choices": [[64], [64, -1]]}},
            r"tune\.space\.model\.deepfm\.hidden\.choices\.1\.1: must be at least 1 \(it is -1\)",
        ),
        (
            "tune/space/model/deepfm",
            {"hidden": {"low": [8], "high": [16]}},
            r"tune\.space\.model\.deepfm\.hidden: low and high must both be given, as numbers",
        ),
        (
            "tune/space/model/dropout",
            {"low": 0.0, "high": 1.0},
            r"tune\.space\.model\.dropout\.high: must be at least 0 and at most 0\.99 \(it is 1\.0\)",
        ),
        (
            "tune/space/model/embedding_size",
            {"low": 8.5, "high": 64},
            r"tune\.space\.model\.embedding_size\.low: .*integer",
        ),
        ("tune/space/train/lr", {"low": 0.0, "high": 0.1}, r"tune\.space\.train\.lr\.low: must be above 0"),
        ("tune/space/train/monitor", {"choices": ["acu"]}, r"monitor\.choices\.0: .*did you mean 'auc'"),
        ("tune/space/train/lr", {"low": 0.001, "high": 0.1, "step": 0}, r"lr\.step: must be above 0"),
        (
            "data/synthetic/settings/tune/space/model/embedding_size",
            {"choices": [4, -8]},
            r"data\.synthetic\.settings\.tune\.space\.model\.embedding_size\.choices\.1: must be at least 1",
        ),
        ("tune/space/train/lr", {"choices": []}, r"tune\.space\.train\.lr.*: .*empty"),
        ("data/synthetic/source", "sythetic", r"data\.synthetic\.source: unknown source"),
        ("data/synthetic/split/tst", 0.2, r"data\.synthetic\.split: unknown key 'tst'; did you mean 'test'"),
        ("data/synthetic/encode/min_count", "2", r"data\.synthetic\.encode\.min_count: .*integer.*'2'"),
        ("data/synthetic/encode/min_count", 0, r"data\.synthetic\.encode\.min_count: must be at least 1"),
        ("data/synthetic/encode/bins", 0, r"data\.synthetic\.encode\.bins: must be at least 1 .*0"),
        ("data/synthetic/encode/max_slots", 0, r"data\.synthetic\.encode\.max_slots: must be at least 1"),
        ("data/synthetic/split/test", 1.0, r"\.split\.test: must be above 0 and below 1 \(it is 1\.0\)"),
        ("data/synthetic/split/valid", 0.0, r"\.split\.valid: must be above 0 and below 1 \(it is 0\.0\)"),
        ("data/synthetic/split/method", "tiem", r"\.split\.method: .*'tiem'; did you mean 'time'"),
        ("data/synthetic/split/seed", -1, r"\.split\.seed: must be at least 0 and at most 2147483647"),
        ("data/book-crossing/preprocess/above", 10, r"\.preprocess\.above: must be at least 0 and at most 9"),
        ("data/book-crossing/preprocess/above", -1, r"\.preprocess\.above: must be at least 0 .*-1"),
        ("data/movielens-1m/preprocess/drop", [3, 6], r"\.preprocess\.drop\.1: must be .* at most 5 .*6"),
        ("data/synthetic/download/rows", 0, r"data\.synthetic\.download\.rows: must be at least 1"),
        (
            "data/synthetic/preprocess/max_rejected",
            nan,
            r"max_rejected: must be a finite number and at least 0 and at most 1",
        ),
        (
            "data/synthetic/downloads",
            {},
            r"data\.synthetic: unknown key 'downloads'; did you",
        ),
        (
            "data/synthetic/settings/trian",
            {},
            r"data\.synthetic\.settings: unknown key 'trian'",
        ),
        ("data/synthetic/settings/train", {"lr": -1.0}, r"train\.lr: must be above 0"),
        (
            "data/synthetic/negatives_kept",
            0.0,
            r"negatives_kept: must be above 0 and at most 1 \(it is 0\.0\)",
        ),
        ("data/synthetic/negatives_kept", 1.1, r"data\.synthetic\.negatives_kept: must be above 0 and at"),
        ("evaluate/bin", 3, r"evaluate: unknown key 'bin'; did you mean 'bins'"),
        ("trian", {}, r"unknown key 'trian'; did you mean 'train'"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], path: str, value: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message) as caught:
        Params(put(values, path, value))
    assert str(caught.value).startswith("params.yaml: ")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("learning_rate", "unknown key 'learning_rate'; did you mean 'lr'?"),
        ("Batch", "unknown key 'Batch'; did you mean 'batch_size'?"),
        ("n-epochs", "unknown key 'n-epochs'; did you mean 'epochs'?"),
        ("early_stopping_patience", "unknown key 'early_stopping_patience'; did you mean 'patience'?"),
        ("weight_decay", "; did you mean 'embedding_l2', 'linear_l2' or 'network_decay'?"),
        ("lookahead", "unknown key 'lookahead' (valid: average_epochs, batch_size, clip_norm, "),
    ],
)
def test_a_key_of_another_library_is_translated(values: dict[str, Any], key: str, message: str) -> None:
    """By the letters `learning_rate` is nearest to `lr_patience`."""
    with pytest.raises(PipelineError) as caught:
        Params(put(values, f"train/{key}", 1))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("place", "of"),
    [
        ("model/deepfm", "model.deepfm: unknown key '{}'"),
        ("data/synthetic/settings/model", "settings.model: unknown model or model argument '{}'"),
        ("tune/space/model", "tune.space.model: unknown key '{}'"),
    ],
)
def test_a_models_key_of_another_library_is_translated_wherever_it_stands(
    values: dict[str, Any], place: str, of: str
) -> None:
    for key, ours in (("embedding_dim", "embedding_size"), ("dnn_hidden_units", "hidden")):
        with pytest.raises(PipelineError) as caught:
            Params(put(values, f"{place}/{key}", 8))
        assert str(caught.value).endswith(f"{of.format(key)}; did you mean {ours!r}?")


def test_synonyms_lead_to_keys_that_there_are() -> None:
    stages = keywords(fit, base=Execution), keywords(assign), Tune
    options = [of_model(model) for model in models.MODELS]
    known = {key for kind in (*stages, *options) for key in kind.model_fields}
    assert {ours for group in SYNONYMS for ours in group} <= known


def test_a_misspelt_key_is_named_and_not_the_one_that_is_missing_for_it(values: dict[str, Any]) -> None:
    values["trian"] = values.pop("train")
    with pytest.raises(PipelineError, match=r"unknown key 'trian'; did you mean 'train'\?"):
        Params(values)


def test_a_file_that_is_no_model_yet_is_told_from_a_variant(values: dict[str, Any]) -> None:
    values["model"]["my_fm"] = {}
    with pytest.raises(PipelineError, match=r"'my_fm' is no model yet: name the class .* in CLASSES"):
        Params({**values, "models": ["my_fm"]})


def test_a_models_file_is_enough_to_be_told_what_makes_it_a_model(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever its name stands, with a block or without: 'mf' is not what was meant by 'gmf'."""
    (tmp_path / "gmf.py").touch()
    monkeypatch.setattr(plan, "MODELS", tmp_path)
    told = r"'gmf' is no model yet: name the class in pipeline/models/gmf\.py in CLASSES"
    for path, value in (
        ("models", ["gmf"]),
        ("variants", ["gmf"]),
        ("model/gmf", {}),
        ("model/x", {"base": "gmf"}),
    ):
        with pytest.raises(PipelineError, match=told):
            Params(put(values, path, value))
    with pytest.raises(PipelineError, match=r"model: has no block 'gmf'; write `gmf: \{\}`"):
        plan.check_names(values, {"model": "gmf"})


def test_rows_in_memory_may_be_left_out(values: dict[str, Any]) -> None:
    assert Params(put(values, "train/rows_in_memory", 9)).config("synthetic", "fm").train.rows_in_memory == 9
    del values["train"]["rows_in_memory"]
    train = Params(values).config("synthetic", "fm").train
    assert train.rows_in_memory == ROWS_IN_MEMORY
    assert "rows_in_memory" not in train.fit


WRONG: list[tuple[str, Any, str]] = [
    ("data/mine", None, "data.mine: is empty: it needs source, download, preprocess, split"),
    ("data/mine", {"source": "synthetic"}, "data.mine.download: is missing; write `download: {}`"),
    (
        "data/mine/source",
        "sythetic",
        "data.mine.source: unknown source 'sythetic'; did you",
    ),
    ("data/mine/downlod", {}, "data.mine: unknown key 'downlod'; did you mean 'download'?"),
    ("data/mine/split/tst", 0.2, "data.mine.split: unknown key 'tst'; did you mean 'test'?"),
    ("data/mine/preprocess", "none", "data.mine.preprocess: "),
    (
        "data/mine/settings/train",
        3,
        "data.mine.settings.train: should be a block of keys, as in `key: value` (it is 3)",
    ),
    ("data/mine/settings/train", {"lr": -1.0}, "data.mine.settings.train.lr: must be above 0"),
    ("data/mine/settings/model", {"fm": {"hiden": 1}}, "data.mine.settings.model.fm: unknown key 'hiden'"),
    ("data/mine/settings/tune", {"trails": 1}, "data.mine.settings.tune: unknown key 'trails'"),
    (
        "data/mine/settings/model",
        {"fm": {"embedding_dropout": 0.9}},
        "tune.space.model.embedding_dropout: does not contain 0.9",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_an_entry_that_does_not_run_stops_nothing_and_its_error_is_a_warning_of_one_line(
    values: dict[str, Any],
    path: str,
    value: Any,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values["data"] = {"mine": deepcopy(values["data"]["synthetic"]) | {"settings": {}}} | values["data"]
    values = put(values, path, value)
    file = tmp_path / "params.yaml"
    with file.open("w", encoding="utf-8") as out:
        YAML(typ="safe", pure=True).dump(values, out)
    params = load(file)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"warning: params.yaml: {message}")
    assert printed.err.endswith("(stops nothing: mine is not in `datasets`)\n")
    assert printed.err.count("\n") == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "1")
        load(file)
    assert capsys.readouterr() == ("", ""), "only the main process prints"
    assert params.config("synthetic", "fm") == Params(values, every_entry=False).config("synthetic", "fm")
    for call in (
        lambda: params.entry("mine"),
        lambda: params.config("mine", "fm"),
        lambda: Params(values),
        lambda: Params({**values, "datasets": ["mine"]}, every_entry=False),
    ):
        with pytest.raises(PipelineError) as caught:
            call()
        assert str(caught.value).startswith(f"params.yaml: {message}")


def test_a_valid_file_is_read_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    load(ROOT / "params.yaml")
    assert capsys.readouterr() == ("", "")


def test_what_is_wrong_with_the_blocks_for_all_is_an_error(values: dict[str, Any]) -> None:
    with pytest.raises(PipelineError, match=r"evaluate: unknown key 'bin'"):
        Params(put(values, "evaluate/bin", 3), every_entry=False)
    with pytest.raises(PipelineError, match=r"train: unknown key 'lrr'"):
        Params(put(values, "train/lrr", 3), every_entry=False)
    with pytest.raises(PipelineError, match=r"data: should be"):
        Params(put(values, "data", ["synthetic"]), every_entry=False)


def test_a_missing_block_is_named(values: dict[str, Any]) -> None:
    del values["tune"]
    with pytest.raises(PipelineError, match=r"params\.yaml: tune"):
        Params(values)


def test_a_dataset_entry_names_every_stage(values: dict[str, Any]) -> None:
    del values["data"]["synthetic"]["encode"]
    with pytest.raises(PipelineError, match=r"data\.synthetic\.encode: is missing; write `encode: {}`"):
        Params(values)


def test_a_number_that_is_missing_is_not_asked_for_as_a_block(values: dict[str, Any]) -> None:
    del values["train"]["threads"]
    with pytest.raises(PipelineError, match=r"train\.threads: is missing; give it a value$"):
        Params(values)


def test_a_model_without_a_block_is_named(values: dict[str, Any]) -> None:
    del values["model"]["fm"]
    with pytest.raises(PipelineError, match=r"model: has no block 'fm'"):
        Params(values)


def test_a_file_that_is_no_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("datasets: [synthetic\nmodels: [fm]\n")
    with pytest.raises(PipelineError, match=r"params\.yaml is not valid YAML in line 2: .* in line 1$"):
        load(path)
    path.write_text("datasets: [synthetic]\nmodel:\n  lr: {}\n  fm: {}\n  lr: {}\n")
    with pytest.raises(PipelineError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}:5: the key 'lr' occurs a second time (its block begins in line 3): remove one of the two"
    )
    path.write_text("datasets: [synthetic]\nmodels: [fm]\n'datasets': [feed]\n")
    with pytest.raises(PipelineError, match=r"yaml:3: .* \(the first is in line 1\): remove one"):
        load(path)
    path.write_bytes(b"# one\ndatasets: [\xf6]\n")
    with pytest.raises(PipelineError, match=r"yaml:2: the byte 0xf6 is no text in UTF-8: save the file as"):
        load(path)
    with pytest.raises(PipelineError, match="is missing; run the command"):
        load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("datasets", "datasets: is empty: name at least one, such as `datasets: [synthetic]`"),
        ("train/seeds", "train.seeds: is empty: name at least one, such as `seeds: [1]`"),
        ("data/synthetic/encode", "data.synthetic.encode: is empty: give it keys, or write `{}`"),
        ("train/lr", "train.lr: should be a valid number (it is empty)"),
    ],
)
def test_what_is_empty_is_told_in_the_words_of_yaml(values: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        Params(put(values, path, None))
    assert str(caught.value) == f"params.yaml: {message}"


def test_an_empty_file_is_told_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    with pytest.raises(PipelineError, match=r"params\.yaml: is empty: it needs datasets, models, data, "):
        load(tmp_path / "params.yaml")


def test_settings_of_a_dataset_win_over_the_blocks(values: dict[str, Any]) -> None:
    values = put(
        values,
        "data/synthetic/settings",
        {
            "model": {"fm": {"embedding_size": 16}},
            "train": {"batch_size": 512, "seeds": [9]},
            "tune": {"trials": 3},
        },
    )
    params = Params(values)
    config = params.config("synthetic", "fm")
    assert config.model["embedding_size"] == 16
    assert config.train.fit["batch_size"] == 512
    assert config.train.seeds == [9]
    assert config.tune.trials == 3
    assert params.config("synthetic", "lr").model == {"neighbour_limit": 0, "neighbour_times": "any"}


def test_the_space_holds_only_what_the_model_has(values: dict[str, Any]) -> None:
    values = put(values, "data/synthetic/settings", {"train": {"lr": 0.001}})
    values = put(values, "tune/space", {
        "model": {
            "embedding_size": {"choices": values_of(values, "embedding_size")},
            "deepfm": {"hidden": {"choices": [values["model"]["deepfm"]["hidden"], [8, 8]]}},
        },
        "train": {"lr": {"low": 0.0001, "high": 0.1, "log": True}},
    })  # fmt: skip
    for item in values["data"].values():
        item["settings"] = {"train": {"lr": 0.001}}
    params = Params(values)
    assert set(params.config("synthetic", "lr").space) == {"train.lr"}
    assert set(params.config("synthetic", "fm").space) == {"model.embedding_size", "train.lr"}
    deepfm = params.config("synthetic", "deepfm")
    assert set(deepfm.space) == {"model.embedding_size", "model.hidden", "train.lr"}
    model, fit = deepfm.at({"model.hidden": [8, 8], "train.lr": 0.01})
    assert model["hidden"] == [8, 8]
    assert fit["lr"] == 0.01
    assert deepfm.model["hidden"] != [8, 8]


def test_a_models_block_has_axes_of_the_training_too_and_null_takes_one_away(values: dict[str, Any]) -> None:
    def train_axes(model: str) -> set[str]:
        space = Params(values).config("synthetic", model).space
        return {name for name in space if name.startswith("train.")}

    every = {"train.batch_size", "train.lr", "train.embedding_l2", "train.network_l2"}
    assert train_axes("deepfm") == every
    assert train_axes("lr") == {"train.batch_size", "train.lr", "train.linear_l2"}
    values = put(values, "tune/space/model/deepfm", {"clip_norm": {"choices": [1.0, 10.0]}, "lr": None})
    assert train_axes("deepfm") == (every | {"train.clip_norm"}) - {"train.lr"}
    assert train_axes("flsest") == every
    assert train_axes("fiinet") == (every | {"train.network_decay"}) - {"train.network_l2"}
    for wrong in ("clip_nrm", "heads"):
        with pytest.raises(PipelineError, match=rf"tune\.space\.model\.deepfm: unknown key '{wrong}'"):
            Params(put(values, "tune/space/model/deepfm", {wrong: {"choices": [1]}}))


@pytest.mark.parametrize("penalty", ["embedding_l2", "linear_l2", "network_l2", "network_decay"])
def test_no_penalty_is_searched_that_acts_on_nothing(values: dict[str, Any], penalty: str) -> None:
    params, one = Params(values), {"embedding_l2": 0.0, "linear_l2": 0.0, "network_l2": 0.0} | {penalty: 1.0}
    for name in params.blocks:
        config = params.config("synthetic", name)
        model = models.build(config.architecture, SCHEMAS["three-domains"], config.model, seed=1)
        acts = any(group.l2 or group.decay for group in parameter_groups(model, **one))
        assert acts or f"train.{penalty}" not in config.space, name


def test_an_ablation_is_searched_like_its_model(values: dict[str, Any]) -> None:
    params = Params(values)
    for name in ("fibinet-sest", "fiinet-s", "fiinet-h", "fiinet-sh", "fwfm-senet", "nfm-sest", "dcnv2-mix"):
        own = params.config("movielens-100k", name)
        assert own.space == params.config("movielens-100k", own.architecture).space, name


@pytest.mark.parametrize(
    ("axis", "value", "nearest"),
    [
        ({"choices": [16, 32, 64]}, 32, 32),
        ({"choices": [16, 32, 64]}, 10, 16),
        ({"choices": [16, 32, 64]}, 400, 64),
        ({"low": 0.0, "high": 0.6, "step": 0.1}, 0.31, 0.3),
        ({"low": 0.0, "high": 0.65, "step": 0.1}, 0.9, 0.6),
        ({"low": 0.001, "high": 0.02, "log": True}, 0.1, 0.02),
        ({"low": 1, "high": 4}, 6, 4),
        ({"choices": [[64], [64, 64], [200, 200], [200, 200, 200]]}, [400, 400, 400], [200, 200, 200]),
        ({"choices": [[64], [64, 64], [200, 200], [200, 200, 200]]}, [1024, 1024], [200, 200]),
        ({"choices": [[64], [64, 64], [200, 200], [200, 200, 200]]}, [64, 64, 64], [64, 64]),
        ({"choices": [[64], [64, 64]]}, [], [64]),
        ({"choices": ["relu", "tanh"]}, "sigmoid", "relu"),
    ],
)
def test_the_nearest_point_of_an_axis(axis: dict[str, Any], value: Any, nearest: Any) -> None:
    dimension = Dimension(**axis)
    assert dimension.nearest(value) == nearest
    assert dimension.holds(dimension.nearest(value))


def test_the_second_start_is_the_papers_configuration(values: dict[str, Any]) -> None:
    """What the constructor has by itself, on the axes; what is no axis, and the training, as the default."""
    values = put(values, "tune/space", {
        "model": {
            "embedding_size": {"choices": [8, 16, 32]},
            "fiinet": {
                "fusion": {"choices": ["align", "field", "pooled", "concat"]},
                "hidden": {"choices": [[64], [200, 200]]},
            },
        },
        "train": {"lr": {"low": 0.0001, "high": 0.1, "log": True}},
    })  # fmt: skip
    settings = {"model": {"embedding_size": 8}, "train": {"lr": 0.01}}
    for item in values["data"].values():
        item["settings"] = settings
    values = put(values, "model/fiinet/fusion", "align")
    values = put(values, "model/fiinet-x", {"base": "fiinet", "fusion": "align"})
    config = Params(values).config("synthetic", "fiinet")
    assert config.starts == [
        {"model.embedding_size": 8, "model.fusion": "align", "model.hidden": [64], "train.lr": 0.01},
        {"model.embedding_size": 32, "model.fusion": "field", "model.hidden": [200, 200], "train.lr": 0.01},
    ]
    assert config.at(config.starts[1])[0]["dropout"] == config.model["dropout"]
    variant = Params(values).config("synthetic", "fiinet-x")
    assert variant.starts[1]["model.fusion"] == "align", "what makes a variant one"
    assert len(Params(values).config("synthetic", "lr").starts) == 1, "the paper's is the default"
    off = Params(put(values, "tune/paper_start", False)).config("synthetic", "fiinet")
    assert off.starts == config.starts[:1]


def values_of(values: dict[str, Any], key: str) -> list[Any]:
    """Every default a model of the file has for `key`, and the signatures' own."""
    return sorted({block[key] for block in values["model"].values() if key in block} | {10, 16, 32})


# ---- variants ----


def test_a_variant_is_its_base_with_other_options(values: dict[str, Any]) -> None:
    values = put(values, "model/fm-sest", {"base": "fm", "embedding_size": 8, "embedding_transform": "sest"})
    values = put(values, "variants", ["fm-sest"])
    values = put(values, "tune/space/model/fm", {"embedding_std": {"low": 0.01, "high": 0.3}})
    values = put(values, "tune/space/model/fm-sest", {"embedding_size": {"choices": [8, 16]}})
    for item in values["data"].values():
        item["settings"] = {
            "model": {"embedding_dropout": 0.2, "embedding_size": 16, "fm": {"embedding_dropout": 0.3}}
        }
    params = Params(values)
    config, fm = params.config("synthetic", "fm-sest"), params.config("synthetic", "fm")
    assert params.models[-1] == "fm-sest"
    assert (config.architecture, fm.architecture) == ("fm", "fm")
    assert config.model == {**fm.model, "embedding_size": 8, "embedding_transform": "sest"}
    assert config.space.keys() == fm.space.keys()
    assert "model.embedding_std" in config.space
    assert config.space["model.embedding_size"].choices == [8, 16]
    assert fm.space["model.embedding_size"].choices != [8, 16]
    assert config.model["embedding_dropout"] == 0.3
    assert config.model["embedding_size"] == 8, "a variant's own word counts more than a dataset's to all"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("variants", ["fm-set"], r"variants: unknown variant 'fm-set'; did you mean 'fm-sest'"),
        ("variants", ["fm"], r"variants: 'fm' is a model: list it"),
        ("variants", ["fm-sest", "fm-sest"], r"variants: names 'fm-sest' twice"),
        ("models", ["fm-sest"], r"models: 'fm-sest' is a variant: list it"),
        ("model/fm-sest/base", "deepfn", r"model\.fm-sest\.base: unknown model 'deepfn'; did you"),
        ("model/fm-sest/hiden", [3], r"model\.fm-sest: unknown key 'hiden' of fm "),
        ("model/fm-set", {"embedding_size": 3}, r"model\.fm-set: is no model, .*`base`"),
        ("model/fm/base", "lr", r"model\.fm: unknown key 'base'"),
        ("model/other", {"base": "fm-sest"}, r"model\.other\.base: 'fm-sest' is a variant itself"),
        (
            "data/synthetic/settings/model/fm-sest",
            {"base": "lr"},
            r"data\.synthetic\.settings\.model\.fm-sest: unknown key 'base'",
        ),
        (
            "data/synthetic/settings/model/fm-sest",
            {"embedding_size": "3"},
            r"data\.synthetic\.settings\.model\.fm-sest\.embedding_size: .*integer",
        ),
        (
            "data/synthetic/settings/model/fm",
            {"embedding_siz": 3},
            r"data\.synthetic\.settings\.model\.fm: unknown key 'embedding_siz'",
        ),
        (
            "tune/space/model/fm-sest",
            {"embedding_size": {"low": 2, "high": 4}},
            r"tune\.space\.model\.fm-sest\.embedding_size: does not contain 8, the default of fm-sest",
        ),
    ],
)
def test_what_is_wrong_with_a_variant_is_named(
    values: dict[str, Any], path: str, value: Any, message: str
) -> None:
    values = put(values, "model/fm-sest", {"base": "fm", "embedding_transform": "sest"})
    with pytest.raises(PipelineError, match=message):
        Params(put(values, path, value))


def test_a_datasets_option_goes_to_every_model_that_has_it(values: dict[str, Any]) -> None:
    shared = {"embedding_dropout": 0.1, "hidden": [7], "deepfm": {"hidden": [5]}}
    for item in values["data"].values():
        item["settings"] = {}
    values = put(values, "tune/space", {})
    params = Params(put(values, "data/synthetic/settings", {"model": shared}))
    assert params.config("synthetic", "lr").model == {"neighbour_limit": 0, "neighbour_times": "any"}
    assert params.config("synthetic", "fm").model["embedding_dropout"] == 0.1
    assert params.config("synthetic", "flsest").model["hidden"] == [7]
    assert params.config("synthetic", "deepfm").model["hidden"] == [5]
    with pytest.raises(PipelineError, match=r"settings\.model: unknown model or model argument 'hiden'"):
        Params(put(values, "data/synthetic/settings", {"model": {"hiden": [7]}}))


def test_a_models_block_has_settings_of_its_training_and_a_dataset_wins_over_them(
    values: dict[str, Any],
) -> None:
    def network_decay(values: dict[str, Any], model: str = "dcn") -> float:
        config = Params(values).config("synthetic", model)
        assert "network_decay" not in config.model | config.paper
        found = float(config.train.fit["network_decay"])
        if model != "deepfm":  # whose search varies its L2
            assert config.start["train.network_decay"] == found
        return found

    values = put(values, "train/network_decay", 1e-3)
    values = put(values, "model/dcn", {"network_decay": 1e-4})
    values = put(values, "model/dcn-light", {"base": "dcn", "network_decay": 1e-5})
    values = put(values, "variants", ["dcn-light"])
    assert (network_decay(values), network_decay(values, "deepfm")) == (1e-4, 1e-3)
    assert network_decay(values, "dcn-light") == 1e-5
    values = put(values, "data/synthetic/settings/train", {"lr": 0.01, "network_decay": 0.0})
    assert (network_decay(values), network_decay(values, "deepfm")) == (0.0, 0.0)
    assert network_decay(values, "dcn-light") == 1e-5, (
        "a variant's own word counts more than a dataset's to all"
    )
    values = put(values, "data/synthetic/settings/model/dcn", {"network_decay": 1e-2})
    assert (network_decay(values), network_decay(values, "deepfm")) == (1e-2, 0.0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model/dcn/network_l2", -1, r"model\.dcn\.network_l2: must be at least 0"),
        ("model/dcn/netwrk_l2", 1, r"model\.dcn: unknown key 'netwrk_l2'; did you mean 'network_l2'"),
        ("model/dcn/seeds", [1], r"model\.dcn: unknown key 'seeds' "),
        (
            "data/synthetic/settings/model/network_l2",
            0,
            r"model: 'network_l2' is a setting of the training: .* data\.synthetic\.settings\.train, for all",
        ),
        (
            "data/synthetic/settings/train/fm",
            {"lr": 1},
            r"settings\.train: 'fm' is a model: .* belongs into data\.synthetic\.settings\.model\.fm",
        ),
        ("train/fm", {"lr": 0.1}, r"train: 'fm' is a model: .* belongs into model\.fm"),
    ],
)
def test_what_is_wrong_with_a_models_training_is_named(
    values: dict[str, Any], path: str, value: Any, message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        Params(put(values, path, value))


def test_make_repro_checks_the_file_before_dvc_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "params.yaml").read_text()
    monkeypatch.setattr("sys.argv", ["pipeline", "--root", str(tmp_path), "check"])
    (tmp_path / "params.yaml").write_text(text)
    command.main()
    (tmp_path / "params.yaml").write_text(text.replace("models: [lr,", "models: [DeepFM, lr,"))
    with pytest.raises(PipelineError, match="unknown model 'DeepFM'; did you mean 'deepfm'"):
        command.main()
    started: list[str] = []

    def start(words: list[str], **_: object) -> CompletedProcess[str]:
        started.append(" ".join(words[1:]))
        return CompletedProcess(words, 1 if "repro" in words else 0)

    monkeypatch.setattr("subprocess.run", start)
    monkeypatch.setattr("sys.argv", ["pipeline", "--root", str(tmp_path), "run"])
    with pytest.raises(SystemExit, match="1"):
        command.main()
    assert [line.split()[-1] for line in started] == ["--quiet", "refresh", "repro"]
    assert "python -m pipeline run" in (ROOT / "Makefile").read_text()


@pytest.mark.slow
def test_an_error_that_several_entries_share_is_told_once(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It lies in a block for all datasets, and only the entry that runs has settings that hide it."""
    other = deepcopy(values["data"]["synthetic"]) | {"settings": {}}
    values["data"]["synthetic"]["settings"] = {"model": {"embedding_size": 8}}
    values["data"] |= {"one": other, "two": deepcopy(other)}
    values["tune"]["space"] = {"model": {"embedding_size": {"low": 8, "high": 9}}}
    file = tmp_path / "params.yaml"
    with file.open("w", encoding="utf-8") as out:
        YAML(typ="safe", pure=True).dump(values, out)
    load(file)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "one" in line]
    assert "does not contain" in line
    assert line.endswith("one, two are not in `datasets`)")


def test_the_default_is_one_of_the_choices_of_its_axis(values: dict[str, Any]) -> None:
    """So that a model of one's own size needs no other search space."""
    params = Params(put(values, "data/synthetic/settings/model/fm", {"embedding_size": 7}))
    config = params.config("synthetic", "fm")
    choices = config.space["model.embedding_size"].choices
    assert choices is not None and choices[-1] == 7 and len(choices) > 1
    assert config.start["model.embedding_size"] == 7


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb:\n  - {c: 2020-13-45}\n", 3),
        ("a: 1\nb: !!int twelve\n", 2),
        (f"a: {'1' * 5000}\n", 1),
    ],
)
def test_a_value_that_is_none_is_named_with_its_line(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(PipelineError) as caught:
        yaml_file.read(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_yaml_that_is_too_deep_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("[" * 500 + "]" * 500)
    with pytest.raises(PipelineError, match=r"params\.yaml"):
        yaml_file.read(path)
