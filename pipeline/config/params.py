"""params.yaml as typed values; whatever is unknown, missing, of the wrong type or out of range is named.

A block of keyword arguments (`download`, `preprocess`, `split`, `encode`, `model`, `train`) is checked
against the signature of the function that takes it: the signature is the config, and no key, type or
range is listed twice.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from functools import cache
from inspect import Parameter
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, create_model

from pipeline.common.errors import PipelineError, error_context, is_main_process, unknown
from pipeline.common.names import check, check_targets
from pipeline.config import yaml_file
from pipeline.config.keys import unknown_key
from pipeline.config.plan import has_file
from pipeline.config.settings import Config, Dataset, Execution, File, Train
from pipeline.config.space import Block, Dimension, Tune
from pipeline.config.validation import NO_BLOCK, Strict, explain, said, type_of
from pipeline.data.batches import ROWS_IN_MEMORY
from pipeline.datasets import DATASETS
from pipeline.layers.neighbours import with_neighbours
from pipeline.layers.options import arguments
from pipeline.models import MODELS
from pipeline.papers.exhibits import EXHIBITS
from pipeline.preprocess import clean_table
from pipeline.split.assign import assign
from pipeline.split.vocabulary import fit_vocabulary
from pipeline.split.warm import take
from pipeline.train.loop import fit

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")
# By the name of a function, the arguments that a stage supplies itself: they are no keys of the file.
SUPPLIED = {
    "download": {"mirror"},
    "fit": {"seed", "log", "checkpoint", "progress", "refit"},
    "fit_vocabulary": {"earlier", "vectors"},
}


class Params:
    """The whole file, checked: lists, dataset entries, and `config(dataset, model)`.

    Args:
        every_entry: whether an error in an entry that does not run is raised, too, or only kept in `invalid`.

    Attributes:
        datasets: names of the dataset entries that run.
        data: the valid dataset entries by name.
        invalid: the error in each entry that does not run, by name.
        models: names of the models and variants that run.
        blocks: names of all models and variants that have a block, whether they run or not.
        mirror: folder or URL where raw files are looked for before their publisher is asked, or None.
        evaluate, paper, watch: the blocks of these names.
        processes: among which the seeds of a run are shared: a number, or `auto`.
        engine: who preprocesses and splits: `local`, this machine, or `ray`, a cluster.
        studies: address of the server that keeps the searches; None for a file.

    Raises:
        PipelineError: something is wrong, with its dotted key.
    """

    def __init__(self, values: Any, file: str = "params.yaml", *, every_entry: bool = True) -> None:
        self._name = file
        self._found: dict[tuple[Any, ...], Any] = {}  # by `_once`
        self._file = self._validated(File, values, "")
        self.datasets, self.models = self._file.datasets, self._file.models + self._file.variants
        self.blocks = self._file.model.keys()
        self.mirror, self.evaluate, self.paper = self._file.mirror, self._file.evaluate, self._file.paper
        self.watch = self._file.watch
        self.processes: int | str = self._file.processes
        self.engine, self.studies = self._file.engine, self._file.studies
        if self.processes != "auto" and (type(self.processes) is not int or self.processes < 1):
            raise self._error("processes", f"must be `auto` or a positive integer (it is {self.processes!r})")
        for name in self.evaluate.blend:
            if name not in self.models:
                raise self._error("evaluate.blend", unknown("model that runs", name, self.models))
        self.data: dict[str, Dataset] = {}
        self.invalid: dict[str, PipelineError] = {}
        self._check_names()
        self._check_lists()
        self._check_targets()
        for name in self._file.model:
            self._model_block(name, None)
        # an error in a block that all datasets share is met at the first entry, which is one that runs
        for name in sorted(self._file.data, key=lambda name: name not in self.datasets):
            try:
                self._add_entry(name)
            except PipelineError as error:
                if every_entry or name in self.datasets:
                    raise
                self.invalid[name] = error

    def entry(self, name: str) -> Dataset:
        """Return a dataset entry.

        Raises:
            PipelineError: there is none of that name, or something is wrong with it.
        """
        if name in self.invalid:
            raise self.invalid[name]
        if name not in self.data:
            raise self._error("data", unknown("dataset", name, self._file.data))
        return self.data[name]

    def config(self, dataset: str, model: str) -> Config:
        """Return all settings of one model on one dataset, whose `settings` win.

        Raises:
            PipelineError: there is no such dataset or model.
        """
        self.entry(dataset)
        if model not in self._file.model:
            raise self._error("model", unknown("model", model, self._file.model))
        tune = self._once(self._tune, dataset)
        config = Config(
            architecture=self._architecture(model),
            model=self._model_block(model, dataset),
            paper=self._once(self._paper_block, model),
            train=self._train(model, dataset),
            tune=tune,
            space={},
            file=self._name,
            place=self._place(model, dataset),
        )
        for axis, (place, dimension) in self._space(model, dataset, tune).items():
            block, option = axis.split(".")
            start = (config.model if block == "model" else config.train.fit)[option]
            config.space[axis] = dimension = dimension.with_choice(start)
            if not dimension.holds(start):
                raise self._error(
                    place,
                    f"does not contain {start!r}, the default of {model} "
                    f"(data.{dataset}.settings and the blocks above it), which is the first trial: "
                    "widen it or change the default",
                )
        return config

    # ---- the lists of what runs ----

    def _check_names(self) -> None:
        with error_context(self._name):
            for kind, names in (
                ("dataset", self.datasets),
                ("model", [*self.models, *self.blocks]),
                ("paper", self._file.papers),
            ):
                for name in names:
                    check(kind, name)

    def _check_lists(self) -> None:
        for key, kind, names, known in (
            ("datasets", "dataset", self.datasets, self._file.data),
            ("papers", "table or figure", self._file.papers, EXHIBITS),
        ):
            for name in names:
                if name not in known:
                    raise self._error(key, unknown(kind, name, known))
        variants = self.blocks - MODELS.keys()
        for name in self._file.models:
            if name in variants and "base" not in self._file.model[name]:
                raise self._error("models", self._no_class(name))
            if name in variants:
                raise self._error("models", f"{name!r} is a variant: list it under `variants`")
            if name not in MODELS:
                raise self._error("models", self._no_model(name))
            if name not in self._file.model:
                raise self._error("model", f"has no block {name!r}; write `{name}: {{}}` for its defaults")
        for name in self._file.variants:
            if name in MODELS:
                raise self._error(
                    "variants",
                    f"{name!r} is a model: list it under `models`, or give the variant another name",
                )
            if name not in variants:
                told = self._no_class(name) if has_file(name) else unknown("variant", name, variants)
                raise self._error("variants", told)
        self._check_once()

    def _check_once(self) -> None:
        lists = {key: getattr(self._file, key) for key in ("datasets", "models", "variants", "papers")}
        lists |= {"evaluate.blend": self.evaluate.blend, "paper.conditions": self.paper.conditions}
        for key, names in lists.items():
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise self._error(key, f"names {twice!r} twice")

    def _check_targets(self) -> None:
        with error_context(self._name):
            for models in (self._file.models, self._file.variants):
                check_targets(self.datasets, models)

    # ---- dataset entries ----

    def _add_entry(self, name: str) -> None:
        """Check an entry of `data`, and that every model can be trained and tuned on it."""
        with error_context(f"{self._name}: data"):
            check("dataset", name)
        place = f"data.{name}"
        entry = self._validated(Dataset, self._file.data[name], place)
        if entry.source not in DATASETS:
            raise self._error(f"{place}.source", unknown("source", entry.source, DATASETS))
        source = DATASETS[entry.source]
        self._validated(keywords(source.download), entry.download, f"{place}.download")
        self._validated(keywords(source.read, clean_table.write), entry.preprocess, f"{place}.preprocess")
        self._validated(keywords(assign), entry.split, f"{place}.split")
        self._validated(keywords(fit_vocabulary, take), entry.encode, f"{place}.encode")
        self._check_shared_options(entry.settings.model, f"{place}.settings.model")
        others = [self.data[other].settings for other in self.data]
        self.data[name] = entry
        if entry.settings in others:  # whose configs were checked
            return
        try:
            for model in self._file.model:
                self.config(name, model)
        except PipelineError:
            del self.data[name]
            raise

    def _check_shared_options(self, block: Block, place: str) -> None:
        """Check that each key is a model or an option that some model has."""
        names, options = MODELS.keys() | self.blocks, _options_of_any_model()
        for key in block:
            if key in names or key in options:
                continue
            if key in keywords(fit).model_fields:
                train = place.removesuffix("model") + "train"
                told = f"{key!r} is a setting of the training: write it into {train}, for all models"
                raise self._error(place, f"{told}, or into the block of one")
            kind = "model or model argument"
            raise self._error(place, unknown_key(key, [*names, *options], kind=kind))

    # ---- settings of one model on one dataset; of several layers the later wins ----

    def _once(self, find: Callable[..., R], *about: Any) -> R:
        """Return what a method finds, asked only once: models share a dataset, and datasets a model."""
        key = find.__name__, *about
        if key not in self._found:
            self._found[key] = find(*about)
        found: R = self._found[key]
        return found

    def _train(self, model: str, dataset: str) -> Train:
        """Return how a model is trained: what `train` says, with the settings of the model's own."""
        settings = f"data.{dataset}.settings"
        own = _of_training(self._architecture(model))
        layers: dict[str, Block] = {"": {"rows_in_memory": ROWS_IN_MEMORY}, "train": self._file.train}
        for place, layer in self._layers(model, dataset).items():
            if place == f"{settings}.model":  # options for all models: those of the training have a block
                layers[f"{settings}.train"] = self.data[dataset].settings.train
            else:
                layers[place] = {key: value for key, value in layer.items() if key in own}
        block, origins = _stacked(layers)
        settable = keywords(fit, base=Execution)
        for key in (block.keys() - settable.model_fields) & self.blocks:
            told = f"{key!r} is a model: what is different in its training belongs into "
            raise self._error(origins[key], f"{told}{origins[key].removesuffix('train')}model.{key}")
        values = dict(self._validated(settable, block, "train", origins))
        return Train(**{key: values.pop(key) for key in Execution.model_fields}, fit=values)

    def _tune(self, dataset: str) -> Tune:
        own = self.data[dataset].settings.tune
        block, origins = _stacked({"tune": self._file.tune, f"data.{dataset}.settings.tune": own})
        return self._validated(Tune, block, "tune", origins)

    def _architecture(self, model: str) -> str:
        """Return the name in `MODELS` of a model, or of what a variant is based on."""
        if model in MODELS:
            return model
        base = self._file.model[model].get("base")
        if base is None and has_file(model):
            raise self._error(f"model.{model}", self._no_class(model))
        if base is None:
            raise self._error(
                f"model.{model}",
                "is no model, and no variant without a `base`, the model it is a variant of; as a model: "
                + unknown("model", model, MODELS),
            )
        if base not in MODELS:
            if base in self._file.model:
                raise self._error(f"model.{model}.base", f"{base!r} is a variant itself: name a model")
            raise self._error(f"model.{model}.base", self._no_model(base))
        return str(base)

    def _model_block(self, model: str, dataset: str | None) -> Block:
        """Return all keyword arguments of a model, the signature's defaults filled in."""
        architecture = self._architecture(model)
        known, training = of_model(architecture), _of_training(architecture)
        layers = self._layers(model, dataset)
        for place, layer in layers.items():
            if not isinstance(layer, dict):
                raise self._error(place, f"{NO_BLOCK} (it is {said(layer)})")
            for key in layer.keys() - known.model_fields - training:
                of = "" if place.endswith(f".{architecture}") else f" of {architecture}"
                raise self._error(place, unknown_key(key, {*known.model_fields, *training}, of=of))
        block, origins = _stacked({place: _without(layer, training) for place, layer in layers.items()})
        return dict(self._validated(known, block, f"model.{model}", origins))

    def _paper_block(self, model: str) -> Block:
        """Return the defaults of a model's signature; of a variant with its own options."""
        architecture = self._architecture(model)
        own = self._file.model[model] if model != architecture else {}
        options = _without(own, {"base", *_of_training(architecture)})
        return dict(self._validated(of_model(architecture), options, f"model.{model}"))

    def _layers(self, model: str, dataset: str | None) -> dict[str, Any]:
        """Return the blocks that a model's arguments come from, by their place in the file.

        They are the model's block; the dataset's `settings.model`, options for every model that has them
        and then the block for this one; of a variant, its base's first, then its own. A model's block has
        settings of its training, too.
        """
        architecture = self._architecture(model)
        known = of_model(architecture).model_fields
        settings = {} if dataset is None else self.data[dataset].settings.model
        place = f"data.{dataset}.settings.model"
        layers = {
            f"model.{architecture}": self._file.model.get(architecture, {}),
            place: {key: value for key, value in settings.items() if key in known},
            f"{place}.{architecture}": settings.get(architecture, {}),
        }
        if model != architecture:
            own = _without(self._file.model[model], {"base"})
            layers |= {f"model.{model}": own, f"{place}.{model}": settings.get(model, {})}
        return layers

    def _place(self, model: str, dataset: str) -> str:
        """Name the blocks that a model's arguments come from, its own first, and the dataset."""
        base = f"model.{self._architecture(model)}"
        names = [f"model.{model}"] + ([f"its base {base}"] if base != f"model.{model}" else [])
        layers = self._layers(model, dataset).items()
        names += [place for place, layer in layers if layer and place.startswith("data.")]
        return f"{', '.join(names)} (dataset {dataset})"

    def _space(self, model: str, dataset: str, tune: Tune) -> dict[str, tuple[str, Dimension]]:
        """Return the axes of one model by their name, each with its place in the file.

        `space.model` contains axes for every model that has the argument, and blocks by model name for one
        model and its variants, or for one variant, where axes of the training may stand too; an axis set to
        null is left out.
        """
        architecture = self._architecture(model)
        known = {"model": of_model(architecture), "train": keywords(fit)}
        own = {key: top for top in ("train", "model") for key in known[top].model_fields}
        for key in tune.space.keys() - known:
            raise self._error("tune.space", unknown_key(key, known))
        shared, names = tune.space.get("model") or {}, {*MODELS, *self.blocks}
        blocks: dict[tuple[str, ...], Block] = {
            ("model",): {key: value for key, value in shared.items() if key not in names}
        }
        blocks |= {("train",): tune.space.get("train") or {}}
        blocks |= {("model", name): shared.get(name) or {} for name in (architecture, model)}
        axes: dict[str, tuple[str, Any]] = {}
        for path, block in blocks.items():
            allowed: Collection[str] = own
            if len(path) == 1:
                allowed = _options_of_any_model() if path == ("model",) else known["train"].model_fields
            for key, value in block.items():
                if key not in allowed:
                    raise self._error(".".join(("tune.space", *path)), unknown_key(key, allowed))
                if key in own:
                    axes[f"{own[key]}.{key}"] = self._space_place(dataset, (*path, key)), value
        result = {}
        for name, (place, value) in sorted(axes.items()):
            if value is not None:
                block_name, key = name.split(".")
                kind = _axis(type_of(known[block_name].model_fields[key]))
                if (place, kind) not in self._found:
                    self._found[place, kind] = self._validated(kind, value, place)
                result[name] = place, self._found[place, kind]
        return result

    def _space_place(self, dataset: str, path: tuple[str, ...]) -> str:
        """Return where an axis is written: in the dataset's own search space, or in that for all."""
        block = self.data[dataset].settings.tune.get("space")
        for key in path:
            block = block.get(key) if isinstance(block, dict) else None
        space = "tune.space" if block is None else f"data.{dataset}.settings.tune.space"
        return ".".join((space, *path))

    # ---- errors ----

    def _validated(
        self, kind: type[T], values: Any, place: str, origins: Mapping[str, str] = MappingProxyType({})
    ) -> T:
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            raise self._error(*explain(error, kind, values, place, origins)) from None

    def _no_model(self, name: str) -> str:
        return self._no_class(name) if has_file(name) else unknown("model", name, MODELS)

    def _no_class(self, name: str) -> str:
        return (
            f"{name!r} is no model yet: name the class in pipeline/models/{name}.py in CLASSES of "
            "pipeline/models/__init__.py; a variant of another model needs its name as `base`"
        )

    def _error(self, key: str, message: str) -> PipelineError:
        return PipelineError(f"{self._name}: {key}: {message}" if key else f"{self._name}: {message}")


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check the file; an error in a dataset entry that does not run is only a warning.

    Raises:
        PipelineError: the file is missing or no YAML, or anything else in it is wrong.
    """
    _, values = yaml_file.read(path)
    params = Params(values, path.name, every_entry=False)
    alike: dict[str, list[str]] = {}  # an error in a block that several entries share is told once
    for name, error in params.invalid.items() if is_main_process() else ():
        alike.setdefault(str(error).replace(f"data.{name}.", ""), []).append(name)
    for names in alike.values():
        words, unused = " ".join(str(params.invalid[names[0]]).split()), ", ".join(names)
        are = f"{unused} {'are' if len(names) > 1 else 'is'} not in `datasets`"
        print(f"warning: {words} (stops nothing: {are})", file=sys.stderr)
    return params


def of_model(architecture: str) -> type[Strict]:
    """Return the options of a model as a type."""
    constructor: Callable[..., Any] = MODELS[architecture]
    return keywords(constructor, with_neighbours)


@cache
def keywords(*functions: Callable[..., Any], base: type[Strict] = Strict) -> type[Strict]:
    """Return the keyword-only arguments of functions as a type that values can be checked against.

    Of several functions that share a block, the first that has an argument gets it.
    """
    fields: dict[str, Any] = {}
    for function in reversed(functions):
        for name, argument in arguments(function).items():
            if name not in SUPPLIED.get(function.__name__, ()):
                default = argument.default
                default = list(default) if isinstance(default, tuple) else default
                fields[name] = argument.hint, ... if default is Parameter.empty else default
    return create_model(functions[0].__qualname__, __base__=base, **fields)


@cache
def _of_training(architecture: str) -> frozenset[str]:
    """Return the settings of a training that a model's block can have, for that model alone."""
    return frozenset(keywords(fit).model_fields.keys() - of_model(architecture).model_fields)


@cache
def _axis(hint: Any) -> type[Dimension]:
    """Return the type of an axis over an option: its values have the type and the range of the option."""
    one: Any = (hint | None, None)
    return create_model("Axis", __base__=Dimension, choices=(list[hint] | None, None), low=one, high=one)


@cache
def _options_of_any_model() -> frozenset[str]:
    return frozenset(key for model in MODELS for key in of_model(model).model_fields)


def _stacked(layers: Mapping[str, Block]) -> tuple[Block, dict[str, str]]:
    """Lay blocks over each other, the later ones win; return the result and each key's place."""
    block: Block = {}
    origins: dict[str, str] = {}
    for place, layer in layers.items():
        block = _merged(block, layer)
        origins |= dict.fromkeys(layer, place)
    return block, origins


def _without(block: Block, keys: Collection[str]) -> Block:
    return {key: value for key, value in block.items() if key not in keys}


def _merged(base: Block, changes: Block) -> Block:
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result
