"""params.yaml as typed values; whatever is unknown, missing or of the wrong type is named.

Blocks that are keyword arguments (`download`, `preprocess`, `split`, `encode`, `model`, `train`) are
checked against the signature they go to: the signature is the config, and no key is listed twice.
"""

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from pipeline.common.errors import PipelineError, is_main_process, nearest, unknown
from pipeline.config import yaml_file
from pipeline.config.space import Block, Dimension, Strict, Tune
from pipeline.data.batches import ROWS_IN_MEMORY
from pipeline.datasets import DATASETS
from pipeline.layers.options import Argument, arguments
from pipeline.models import MODELS
from pipeline.preprocess import clean_table
from pipeline.split import assign
from pipeline.split.vocabulary import fit_vocabulary
from pipeline.train.loop import fit

T = TypeVar("T", bound=BaseModel)
# fit's arguments that a stage supplies itself
_RUNTIME = frozenset({"seed", "log", "checkpoint", "progress"})
# what a number may be, by the name it has in every signature: (lowest, highest, lowest allowed itself)
_RANGES: dict[str, tuple[float, float, bool]] = {
    "lr": (0, math.inf, False),
    "lr_factor": (0, 1, False),
    "batch_size": (1, math.inf, True),
    "epochs": (1, math.inf, True),
    "evaluations_per_epoch": (1, math.inf, True),
    "patience": (1, math.inf, True),
    "lr_patience": (0, math.inf, True),
    "clip_norm": (0, math.inf, True),
    "lazy_rows": (1, math.inf, True),
    "embedding_l2": (0, math.inf, True),
    "network_l2": (0, math.inf, True),
    "embedding_size": (1, math.inf, True),
    "embedding_std": (0, math.inf, True),
    "dropout": (0, 0.99, True),
    "embedding_dropout": (0, 0.99, True),
    "dicefactor": (0, 0.99, True),
    "reduction": (1, math.inf, True),
    "channels": (1, math.inf, True),
    "rows": (1, math.inf, True),
    "max_rejected": (0, 1, True),
    "interaction_dropout": (0, 0.99, True),
    "attention_size": (1, math.inf, True),
    "heads": (1, math.inf, True),
    "attention_layers": (1, math.inf, True),
    "gate_size": (1, math.inf, True),
    "crosses": (0, math.inf, True),
    "history": (1, math.inf, True),
    "intents": (1, math.inf, True),
    "intent_size": (1, math.inf, True),
    "neighbours": (1, math.inf, True),
    "second_neighbours": (1, math.inf, True),
    "cross_layers": (1, math.inf, True),
    "low_rank": (0, math.inf, True),
    "experts": (1, math.inf, True),
    "temperature": (0, math.inf, False),
    "blocks": (1, math.inf, True),
    "block_size": (1, math.inf, True),
    "aggregation": (0, math.inf, False),
    "layers": (1, math.inf, True),
    "maps": (1, math.inf, True),
    "neurons": (1, math.inf, True),
    "rank": (1, math.inf, True),
    "fm_vectors": (1, math.inf, True),
    "linear_vectors": (1, math.inf, True),
    "trees": (1, math.inf, True),
    "leaves": (2, math.inf, True),
    "tree_lr": (0, math.inf, False),
    "smoothing": (0, math.inf, False),
}


class Dataset(Strict):
    """One item of `data`: a source and what each stage is told about it.

    All keys must be there, empty or not: each is a dependency of a stage in dvc.yaml.
    """

    source: str
    download: Block
    preprocess: Block
    split: Block
    encode: Block
    settings: Block


class Train(Strict):
    """How every training runs; `fit` holds the keyword arguments of `training.fit`."""

    seeds: list[int] = Field(min_length=1)
    device: str = "auto"
    threads: int = Field(ge=1)
    rows_in_memory: int = Field(default=ROWS_IN_MEMORY, ge=1)
    fit: Block = Field(default_factory=dict)


class Evaluate(Strict):
    """Settings of the test report."""

    bins: int = Field(default=20, ge=2)


class _File(Strict):
    datasets: list[str] = Field(min_length=1)
    models: list[str] = Field(min_length=1)
    variants: list[str] = Field(default_factory=list)
    mirror: str | None = None
    processes: Any = "auto"
    data: dict[str, Any]  # each a `Dataset`; checked one by one, so that one need not stop the others
    model: dict[str, Block]
    train: Block
    tune: Block
    evaluate: Evaluate = Evaluate()


class Config(BaseModel):
    """What one model is trained and tuned with on one dataset.

    Attributes:
        architecture: the model's name in `MODELS`; of a variant its `base`.
        model: keyword arguments of the model's constructor.
        train: seeds, device, threads, rows in memory and the keyword arguments of `training.fit`.
        tune: budget and sampler; `space` holds only the axes this model has, by dotted name
            (`model.embedding_size`, `train.lr`).
        file: the file all of it stands in.
        place: the blocks there that the model's arguments come from, and the dataset.
    """

    architecture: str
    model: Block
    train: Train
    tune: Tune
    space: dict[str, Dimension]
    file: str
    place: str

    def where(self, point: Block | None = None) -> str:
        """Say where these settings stand, for errors; of a point of the search space what it changes, too."""
        start = self.start
        tried = [f"{name} {value}" for name, value in (point or {}).items() if value != start[name]]
        searched = f"tune.space ({', '.join(tried)}), " if tried else ""
        return f"{self.file}: {searched}{self.place}"

    @property
    def start(self) -> Block:
        """The default value of every axis: the first trial."""
        blocks = {"model": self.model, "train": self.train.fit}
        return {name: blocks[name.split(".")[0]][name.split(".")[1]] for name in self.space}

    def at(self, point: Block) -> tuple[Block, Block]:
        """Return (model, fit) keyword arguments at a point of the search space."""
        model, train = dict(self.model), dict(self.train.fit)
        for name, value in point.items():
            block, key = name.split(".")
            (model if block == "model" else train)[key] = value
        return model, train


class Params:
    """The whole file, checked: lists, dataset items, and `config(dataset, model)`.

    Args:
        every_item: whether an error in a dataset item that does not run is raised, or only kept in `wrong`.

    Attributes:
        datasets: names of the dataset items that run.
        data: the dataset items by name, but for those in `wrong`.
        wrong: what is wrong with items that do not run, by name.
        models: names of the models and variants that run.
        blocks: names of all models and variants that have a block, whether they run or not.
        processes: among which the seeds of a run are shared: a number, or `auto`.
    """

    def __init__(self, values: Any, where: str = "params.yaml", *, every_item: bool = True) -> None:
        self._where = where
        self._file = self._validated(_File, values, "")
        self.datasets, self.models = self._file.datasets, self._file.models + self._file.variants
        self.blocks = self._file.model.keys()
        self._named = MODELS.keys() | self.blocks  # what a block under `settings` or `space` may be named for
        self.mirror, self.evaluate = self._file.mirror, self._file.evaluate
        self.data: dict[str, Dataset] = {}
        self.wrong: dict[str, PipelineError] = {}
        self.processes: int | str = self._file.processes
        if self.processes != "auto" and (type(self.processes) is not int or self.processes < 1):
            raise self._error("processes", f"should be auto or a number from 1 on (it is {self.processes!r})")
        self._check_lists()
        for name in self._file.model:
            self.architecture(name)
            self.model_block(name, None)
        for name in sorted(self._file.data, key=lambda name: name not in self.datasets):
            try:
                self._check_item(name)
            except PipelineError as error:  # what is wrong everywhere is wrong with the first, which runs
                if every_item or name in self.datasets:
                    raise
                self.wrong[name] = error

    def item(self, name: str) -> Dataset:
        """Return a dataset item.

        Raises:
            PipelineError: there is none of that name, or something is wrong with it.
        """
        if name in self.wrong:
            raise self.wrong[name]
        if name not in self.data:
            raise self._error("data", unknown("dataset", name, self._file.data))
        return self.data[name]

    def _check_item(self, name: str) -> None:
        """Check an item of `data`, and that every model can be trained and tuned on it."""
        item = self._validated(Dataset, self._file.data[name], f"data.{name}")
        self._check_dataset(name, item)
        self.data[name] = item
        try:
            for model in self._file.model:
                self.config(name, model)
        except PipelineError:
            del self.data[name]
            raise

    def _check_lists(self) -> None:
        """Check the three lists of what runs."""
        for name in self.datasets:
            if name not in self._file.data:
                raise self._error("datasets", unknown("dataset", name, self._file.data))
        variants = self.blocks - MODELS.keys()
        for name in self._file.models:
            if name in variants:
                raise self._error("models", f"{name!r} is a variant: list it under `variants`")
            self._known_model(name, "models")
            if name not in self._file.model:
                raise self._error("model", f"has no block {name!r}; write `{name}: {{}}` for its defaults")
        for name in self._file.variants:
            if name in MODELS:
                raise self._error(
                    "variants",
                    f"{name!r} is a model: list it under `models`, or give the variant another name",
                )
            if name not in variants:
                raise self._error("variants", unknown("variant", name, variants))
        for key in ("datasets", "models", "variants"):
            names = getattr(self._file, key)
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise self._error(key, f"names {twice!r} twice")

    def config(self, dataset: str, model: str) -> Config:
        """Resolve the blocks for one model on one dataset: the dataset's `settings` win."""
        settings = self.item(dataset).settings
        if model not in self._file.model:
            raise self._error("model", unknown("model", model, self._file.model))
        where = f"data.{dataset}.settings"
        block, own = _merge(self._file.train, settings.get("train", {})), settings.get("train", {})
        places = {key: f"{where}.train" if key in own else "train" for key in block}
        known = [*(Train.model_fields.keys() - {"fit"}), *_keywords(fit, _RUNTIME)]
        for key in block:
            if key not in known:
                raise self._error(places[key], unknown("key", key, known))
        runtime = {key: block.pop(key) for key in Train.model_fields if key in block}
        train = self._validated(Train, runtime, "train", places)
        train.fit = self._arguments(fit, block, "train", _RUNTIME, places)
        tune = self._validated(Tune, self._file.tune, "tune")
        if "tune" in settings:
            tune = self._validated(Tune, _merge(self._file.tune, settings["tune"]), f"{where}.tune")
        config = Config(
            architecture=self.architecture(model),
            model=self.model_block(model, dataset),
            train=train,
            tune=tune,
            space=self._space(model, tune),
            file=self._where,
            place=self._place(model, dataset),
        )
        for name, start in config.start.items():
            if not config.space[name].holds(start):
                raise self._error(
                    self._axis_place(model, name, tune),
                    f"does not hold the default {start!r} of {model} ({where} and the blocks above it), "
                    "which is the first trial: widen it or change the default",
                )
        return config

    def architecture(self, model: str) -> str:
        """Return the name in `MODELS` of a model, or of what a variant is based on."""
        if model in MODELS:
            return model
        base = self._file.model[model].get("base")
        if base is None:
            raise self._error(
                f"model.{model}",
                f"is no model, and no variant without a `base`, the model it is a variant of; as a model: "
                f"{unknown('model', model, MODELS)}",
            )
        if base not in MODELS:
            if base in self._file.model:
                raise self._error(f"model.{model}.base", f"{base!r} is a variant itself: name a model")
            raise self._error(f"model.{model}.base", unknown("model", base, MODELS))
        return str(base)

    def model_block(self, model: str, dataset: str | None) -> Block:
        """Return all keyword arguments of a model, the signature's defaults filled in.

        Of several layers the later wins.
        """
        architecture = self.architecture(model)
        known = _keywords(MODELS[architecture])
        block: Block = {}
        places: dict[str, str] = {}  # where each option comes from, for errors
        for place, layer in self._layers(model, dataset):
            if not isinstance(layer, dict):
                raise self._error(place, f"should be a valid dictionary (it is {layer!r})")
            for key in layer:
                if key not in known:
                    of = "" if place.endswith(f".{architecture}") else f" of {architecture}"
                    raise self._error(place, f"unknown key {key!r}{of}{nearest(key, known)}")
            block = _merge(block, layer)
            places |= dict.fromkeys(layer, place)
        return self._arguments(MODELS[architecture], block, f"model.{model}", places=places)

    def _layers(self, model: str, dataset: str | None) -> list[tuple[str, Any]]:
        """Return the blocks that a model's arguments come from, each with its place.

        They are the model's block; the dataset's `settings.model`, options for every model that has them
        and then the block for this one; of a variant, its base's first, then its own.
        """
        architecture = self.architecture(model)
        known = _keywords(MODELS[architecture])
        settings: Block = {}
        if dataset is not None:
            settings = self.data[dataset].settings.get("model", {})
        at = f"data.{dataset}.settings.model"
        layers = [
            (f"model.{architecture}", self._file.model.get(architecture, {})),
            (at, {key: value for key, value in settings.items() if key in known}),
            (f"{at}.{architecture}", settings.get(architecture, {})),
        ]
        if model != architecture:
            own = {key: value for key, value in self._file.model[model].items() if key != "base"}
            layers += [(f"model.{model}", own), (f"{at}.{model}", settings.get(model, {}))]
        return layers

    def _place(self, model: str, dataset: str) -> str:
        """Name the blocks that a model's arguments come from, its own first, and the dataset."""
        base = f"model.{self.architecture(model)}"
        names = [f"model.{model}"] + ([f"its base {base}"] if base != f"model.{model}" else [])
        names += [
            place for place, layer in self._layers(model, dataset) if layer and place.startswith("data.")
        ]
        return f"{', '.join(names)} (dataset {dataset})"

    def _check_dataset(self, name: str, item: Dataset) -> None:
        where = f"data.{name}"
        if item.source not in DATASETS:
            raise self._error(f"{where}.source", unknown("source", item.source, DATASETS))
        source = DATASETS[item.source]
        self._arguments(source.download, item.download, f"{where}.download", frozenset({"mirror"}))
        self._arguments((source.read, clean_table.write), item.preprocess, f"{where}.preprocess")
        self._arguments(assign.assign, item.split, f"{where}.split")
        self._arguments(fit_vocabulary, item.encode, f"{where}.encode")
        for key, block in item.settings.items():
            if key not in ("model", "train", "tune"):
                raise self._error(f"{where}.settings", unknown("key", key, ("model", "train", "tune")))
            if not isinstance(block, dict):
                raise self._error(f"{where}.settings.{key}", "must be a block of keys")
        options = _every_option()
        for key in item.settings.get("model", {}):
            if key not in self._named and key not in options:
                choices = [*self._named, *options]
                raise self._error(f"{where}.settings.model", unknown("model or model argument", key, choices))

    def _space(self, model: str, tune: Tune) -> dict[str, Dimension]:
        """Pick the axes of one model.

        `space.model` holds axes for every model that has the argument, and blocks by model name for
        one model and its variants, or for one variant; an axis set to null is left out.
        """
        architecture = self.architecture(model)
        space = tune.space
        for key in space:
            if key not in ("model", "train"):
                raise self._error("tune.space", unknown("key", key, ("model", "train")))
        shared = {k: v for k, v in (space.get("model") or {}).items() if k not in self._named}
        for key in shared:
            if key not in _every_option():
                raise self._error("tune.space.model", unknown("model argument", key, _every_option()))
        own: Block = {}
        keys = _keywords(MODELS[architecture])
        for name in dict.fromkeys((architecture, model)):
            block = (space.get("model") or {}).get(name) or {}
            own.update(block)
            for key in block:
                if key not in keys:
                    raise self._error(f"tune.space.model.{name}", unknown("key", key, keys))
        axes = {f"model.{k}": v for k, v in {**shared, **own}.items() if k in keys}
        fit_keys = _keywords(fit, _RUNTIME)
        for key, value in (space.get("train") or {}).items():
            if key not in fit_keys:
                raise self._error("tune.space.train", unknown("key", key, fit_keys))
            axes[f"train.{key}"] = value
        return {
            name: self._validated(Dimension, value, f"tune.space.{name}")
            for name, value in sorted(axes.items())
            if value is not None
        }

    def _axis_place(self, model: str, axis: str, tune: Tune) -> str:
        """Say where the axis of a model stands: in a block of its own, or among those for all."""
        block, key = axis.split(".")
        for name in (model, self.architecture(model)):
            if block == "model" and key in (tune.space["model"].get(name) or {}):
                return f"tune.space.model.{name}.{key}"
        return f"tune.space.{axis}"

    def _known_model(self, name: str, where: str) -> None:
        if name not in MODELS:
            raise self._error(where, unknown("model", name, MODELS))

    def _arguments(
        self,
        functions: Callable[..., Any] | Sequence[Callable[..., Any]],
        block: Block,
        where: str,
        supplied: frozenset[str] = frozenset(),
        places: dict[str, str] | None = None,
    ) -> Block:
        """Check `block` against the keyword-only arguments of a function and fill in its defaults.

        Of several functions that share the block, the first that has an argument gets it. `places` says
        where a key stands that is not at `where`.
        """
        functions = functions if isinstance(functions, Sequence) else (functions,)
        owner = {key: f for f in reversed(functions) for key in _keywords(f, supplied)}
        keywords = {key: _keywords(f)[key] for key, f in owner.items()}
        for key in block:
            if key not in keywords:
                raise self._error(where, unknown("key", key, keywords))
        result = {}
        for key, parameter in keywords.items():
            if key not in block and parameter.default is inspect.Parameter.empty:
                raise self._error(where, f"the key {key!r} is missing")
            value, at = block.get(key, deepcopy(parameter.default)), (places or {}).get(key, where)
            value = list(value) if isinstance(value, tuple) else value
            try:
                result[key] = _adapter(owner[key], key).validate_python(value)
            except ValidationError as error:
                raise self._error(*_told(error, f"{at}.{key}", value, _hint(owner[key], key))) from None
            low, high, inclusive = _RANGES.get(key, (-math.inf, math.inf, True))
            if isinstance(value, int | float) and not (low <= value <= high and (inclusive or value > low)):
                bound = f"at least {low:g}" if inclusive else f"above {low:g}"
                top = f" and at most {high:g}" if high < math.inf else ""
                raise self._error(f"{at}.{key}", f"must be {bound}{top} (it is {value!r})")
        return result

    def _validated(self, kind: type[T], values: Any, where: str, places: dict[str, str] | None = None) -> T:
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = (places or {}).get(str(first["loc"][0]) if first["loc"] else "", where)
            path = ".".join([*([where] if where else []), *map(str, first["loc"])])
            if first["type"] == "extra_forbidden":
                parent, _, key = path.rpartition(".")
                raise self._error(parent, unknown("key", key, _keys_at(kind, first["loc"]))) from None
            reason, given = _reason(error, kind), first["input"]
            if isinstance(given, str | int | float) and str(given) not in reason:
                reason += f" (it is {given!r})"
            raise self._error(path, reason) from None

    def _error(self, key: str, message: str) -> PipelineError:
        return PipelineError(f"{self._where}: {key}: {message}" if key else f"{self._where}: {message}")


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check the file; what is wrong with a dataset item that does not run is only told.

    Raises:
        PipelineError: the file is missing or no YAML, or one of its other values is wrong.
    """
    _, values = yaml_file.read(path)
    params = Params(values, path.name, every_item=False)
    for name, error in params.wrong.items() if is_main_process() else ():
        words = " ".join(str(error).split())
        print(f"warning: {words} (stops nothing: {name} is not in `datasets`)", file=sys.stderr)
    return params


def _keywords(function: Callable[..., Any], supplied: frozenset[str] = frozenset()) -> dict[str, Argument]:
    return {name: p for name, p in arguments(function).items() if name not in supplied}


@cache
def _every_option() -> frozenset[str]:
    """Return the arguments that some model has."""
    return frozenset(name for model in MODELS.values() for name in _keywords(model))


def _hint(function: Callable[..., Any], key: str) -> Any:
    return arguments(function)[key].hint


@cache
def _adapter(function: Callable[..., Any], key: str) -> TypeAdapter[Any]:
    hint = _hint(function, key)
    strict = inspect.isclass(hint) and issubclass(hint, BaseModel)  # a model says itself how strict it is
    return TypeAdapter(hint) if strict else TypeAdapter(hint, config=ConfigDict(strict=True))


def _told(error: ValidationError, where: str, value: Any, hint: Any) -> tuple[str, str]:
    """Return the dotted key within an argument that is wrong, and what is wrong with it."""
    first = error.errors()[0]
    path: list[str] = [where]
    for step in first["loc"]:  # steps that are not in the value name branches of a type
        known = isinstance(value, dict) and step in value
        if not (known or (isinstance(value, list) and isinstance(step, int) and step < len(value))):
            break
        value = value[step]
        path.append(str(step))
    last = first["loc"][-1] if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return ".".join(path[:-1]), unknown("key", last, _keys_at(hint, first["loc"]))
    if first["type"] == "missing":
        return ".".join(path), f"the key {last!r} is missing"
    return ".".join(path), f"{_reason(error)} (it is {value!r})"


def _keys_at(hint: Any, path: tuple[int | str, ...]) -> dict[str, FieldInfo]:
    """Return the keys that the block holding `path` may have; steps into a mapping or list lead inside."""
    for step in path[:-1]:
        fields = _keys_of(hint)
        hint = fields[str(step)].annotation if str(step) in fields else (get_args(hint) or (hint,))[-1]
    return _keys_of(hint)


def _keys_of(hint: Any) -> dict[str, FieldInfo]:
    """Return the fields of a model, or of the first one in a union of types."""
    models = [t for t in (hint, *get_args(hint)) if inspect.isclass(t) and issubclass(t, BaseModel)]
    return models[0].model_fields if models else {}


def _merge(base: Block, changes: Block) -> Block:
    """Return `base` with `changes` laid over it, block by block."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merge(result[key], value) if both else value
    return result


def _reason(error: ValidationError, kind: Any = None) -> str:
    first = error.errors()[0]
    if first["type"] == "missing":
        key = str(first["loc"][-1])
        field = _keys_at(kind, first["loc"]).get(key)
        if field is not None and field.annotation in (int, float, str, bool):
            return "is missing; give it a value"
        return f"is missing; write `{key}: {{}}` for its defaults, or a value"
    return first["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
