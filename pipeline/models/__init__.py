"""The models by the name of their file; a new one is a file and a line of `CLASSES`."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn

from pipeline.common.errors import PipelineError, unknown
from pipeline.layers.neighbours import MEMORY, NeighbourSchema, with_neighbours
from pipeline.layers.options import arguments, grouped
from pipeline.layers.vectors import GIVEN, GivenVectors, with_vectors
from pipeline.schema import Schema

BASE_LOGIT = "base_logit"  # the buffer of a model that is added to its output: see `train.base_rate`
CLASSES = {
    "lr": "LR",
    "fm": "FM",
    "deepfm": "DeepFM",
    "fiinet": "FiiNet",
    "flsest": "FLSEST",
    "nfm": "NFM",
    "dnn": "DNN",
    "autoint": "AutoInt",
    "fibinet": "FiBiNET",
    "flen": "FLEN",
    "finalmlp": "FinalMLP",
    "finalnet": "FinalNet",
    "wide_deep": "WideDeep",
    "pnn": "PNN",
    "din": "DIN",
    "disenctr": "DisenCTR",
    "dcn": "DCN",
    "dcnv2": "DCNv2",
    "xdeepfm": "XDeepFM",
    "edcn": "EDCN",
    "gdcn": "GDCN",
    "fcn": "FCN",
    "masknet": "MaskNet",
    "fnn": "FNN",
    "fwfm": "FwFM",
    "ffm": "FFM",
    "afm": "AFM",
    "fmfm": "FmFM",
    "mf": "MF",
    "onn": "ONN",
    "qnn": "QNN",
    "eulernet": "EulerNet",
    "afn": "AFN",
    "wukong": "Wukong",
    "rankmixer": "RankMixer",
    "simcen": "SimCEN",
    "gbdt_lr": "GBDTLR",
    "autorec": "AutoRec",
}


class _Models(Mapping[str, type[nn.Module]]):
    """Name -> class; a file is imported when its model is first requested."""

    def __getitem__(self, name: str) -> type[nn.Module]:
        module = import_module(f"pipeline.models.{name}")
        model: type[nn.Module] | None = getattr(module, CLASSES[name], None)
        if model is None:
            raise PipelineError(
                f"pipeline/models/{name}.py has no class {CLASSES[name]!r}, which CLASSES in "
                "pipeline/models/__init__.py says it has"
            )
        return model

    def __contains__(self, name: object) -> bool:
        return name in CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(CLASSES)

    def __len__(self) -> int:
        return len(CLASSES)


MODELS = _Models()


def build(name: str, schema: Schema, options: dict[str, Any], *, seed: int) -> nn.Module:
    """Construct a model on the CPU; `seed` alone decides its initial weights.

    Args:
        options: as in params.yaml: the model's own, with the flat keys of `Embed` and `Net`, and those that
            every model has, the arguments of `with_neighbours`.

    Raises:
        PipelineError: no model has that name, or its options do not fit each other or the schema. The
            caller adds where they come from.
    """
    if name not in MODELS:
        raise PipelineError(unknown("model", name, MODELS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            shared = {key: value for key, value in options.items() if key in arguments(with_neighbours)}
            own = {key: value for key, value in options.items() if key not in shared}
            schema = with_neighbours(with_vectors(schema), **shared)
            model = MODELS[name](schema, **grouped(MODELS[name], own))
        except ValueError as error:
            raise PipelineError(str(error)) from None
    if isinstance(schema, NeighbourSchema):
        setattr(model, MEMORY, schema.neighbours)
    if isinstance(schema.vectors, GivenVectors):
        setattr(model, GIVEN, schema.vectors)
    model.register_buffer(BASE_LOGIT, torch.zeros(()))
    return model
