"""Which options test_models.py tries of every model; a new reading adds a line, a new option seldom does."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pipeline.layers.neighbours import with_neighbours
from pipeline.layers.options import arguments
from pipeline.models import MODELS

# Small and without dropout, wherever a model has the option.
SMALL = {
    "embedding_size": 4,
    "attention_size": 12,
    "hidden": [8, 6],
    "hidden_size": 6,
    "dropout": 0.0,
    "history": 3,
    "neighbours": 2,
    "second_neighbours": 2,
    "trees": 10,
}

# The readings and ablations that each model has beside its defaults.
READINGS: dict[str, list[dict[str, Any]]] = {
    "deepfm": [{"hidden": []}, {"activation": "tanh"}],
    "fiinet": [
        {"pool": "mean"},
        {"second_layer": "sigmoid"},
        {"second_layer": "none"},
        {"separate": True},
        {"separate": True, "gate": "sigmoid", "squeeze": "max"},
        {"separate": True, "orders": [3]},
        {"attention": False},
        {"attention": False, "orders": [2]},
        {"fusion": "pooled"},
        {"fusion": "pooled", "pool": "sum", "separate": True, "gate": "sigmoid"},
        {"fusion": "concat"},
        {"fusion": "concat", "gate": "sigmoid"},
        {"fusion": "concat", "squeeze": "max"},
        {"fusion": "concat", "separate": True},
        {"fusion": "concat", "orders": [2]},
        {"fusion": "project", "channels": 5},
        {"fusion": "project", "channels": 5, "squeeze": "max"},
        {"fusion": "project", "channels": 5, "attention": False},
        {"fusion": "align"},
        {"fusion": "align", "second_layer": "none"},
        {"fusion": "align", "attention": False},
        {"hidden": []},
    ],
    "flsest": [
        {"merge": "concat"},
        {"threshold": "relu"},
        {"merge": "concat", "threshold": "relu"},
        {"use_fwbi": False},
        {"use_mlp": False},
        {"scope": "domain"},
        {"scope": "domain", "merge": "concat", "joint": "linear"},
        {"gate": "component"},
        {"gate": "component", "scope": "domain", "merge": "concat"},
        {"joint": "linear"},
        {"second_copy": "none"},
        {"second_copy": "same"},
        {"use_fwbi": False, "second_copy": "none"},
        {"use_mlp": False, "second_copy": "none"},
        {"use_mlp": False, "merge": "concat"},
        {"reduction": 1},
        {"dicefactor": 0.3},
    ],
    "nfm": [{"hidden": []}, {"interaction_dropout": 0.5}],
    "dnn": [{"hidden": []}, {"activation": "tanh"}],
    "autoint": [
        {"hidden": []},
        {"scaling": True},
        {"heads": 1},
        {"heads": 3},
        {"attention_layers": 1},
    ],
    "fibinet": [
        {"kind": "all"},
        {"kind": "each"},
        {"excitation": "sest"},
        {"excitation": "none"},
        {"reduction": 1},
        {"hidden": []},
    ],
    "flen": [{"dicefactor": 0.3}, {"joint": "linear"}, {"hidden": []}],
    "finalmlp": [
        {"gate1": ["user"], "gate2": ["item"]},
        {"gate1": ["item", "user"]},
        {"gating": False},
        {"heads": 2},
        {"heads": 2, "hidden2": [3, 6]},
    ],
    "finalnet": [
        {"block": "1B"},
        {"gating": True},
        {"gating": True, "block": "1B"},
        {"merge": "concat"},
        {"activation": "relu"},
        {"activation": "tanh", "activate": "layer"},
        {"activation": "tanh", "activate": "layer", "merge": "concat"},
        {"hidden": []},
    ],
    "wide_deep": [{"hidden": []}, {"crosses": 50}, {"crosses": 1}],
    "pnn": [
        {"hidden": [5]},
        {"factorized": False},
        {"product": "outer"},
        {"product": "both"},
        {"product": "both", "factorized": False},
    ],
    "din": [
        {"normalise": True},
        {"negatives": True},
        {"history": 1},
        {"attention_hidden": []},
        {"hidden": []},
    ],
    "disenctr": [{"intents": 2}, {"history": 1}, {"neighbours": 1, "second_neighbours": 1}],
    "dcn": [{"hidden": []}, {"cross_layers": 1}],
    "dcnv2": [
        {"structure": "stacked"},
        {"low_rank": 3, "cross_activation": "identity"},
        {"low_rank": 3},
        {"low_rank": 3, "experts": 2},
        {"low_rank": 2, "experts": 3, "gate": "sigmoid", "structure": "stacked"},
        {"hidden": []},
    ],
    "xdeepfm": [
        {"cin": [6, 4, 3], "split_half": True},
        {"cin": [5], "cin_activation": "relu"},
        {"cin": [4, 3], "split_half": True, "cin_activation": "relu"},
        {"hidden": []},
    ],
    "edcn": [
        {"bridge": "sum"},
        {"bridge": "concat"},
        {"bridge": "attention"},
        {"temperature": 0.3},
        {"cross_layers": 1},
    ],
    "gdcn": [{"structure": "stacked"}, {"hidden": []}],
    "fcn": [
        {"mask": "norm"},
        {"bias": "inside"},
        {"linear_layers": 1},
        {"networks": "exponential"},
        {"networks": "linear"},
        {"embedding_size": 5},
    ],
    "masknet": [
        {"structure": "serial"},
        {"structure": "serial", "hidden": []},
        {"hidden": []},
        {"blocks": 1},
        {"aggregation": 0.5},
    ],
    "fnn": [{"pretrain": False}, {"hidden": []}],
    "fwfm": [{"linear": "lw"}, {"linear": "felv"}, {"linear": "felv", "embedding_transform": "senet"}],
    "onn": [{"hidden": []}, {"product": "hadamard"}],
    "qnn": [
        {"heads": 2},
        {"maps": 1},
        {"layers": 1},
        {"heads": 4, "maps": 3, "batch_norm": True},
    ],
    "eulernet": [
        {"order_vectors": [4, 3]},
        {"layer_norm": False},
        {"implicit": False},
        {"order_vectors": [1]},
    ],
    "afn": [
        {"deep": [5]},
        {"hidden": []},
        {"deep": [5], "hidden": []},
    ],
    "wukong": [
        {"projection": "none"},
        {"projection": "learnt", "hidden": []},
        {"fm_vectors": 2, "linear_vectors": 2},
        {"layers": 1},
        {"hidden": [], "fm_hidden": []},
    ],
    "simcen": [{"hidden": []}, {"hidden": [6, 6]}, {"contrast": 0.0}],
    "rankmixer": [{"tokens": 1}, {"tokens": 7}, {"expansion": 1, "layers": 1}],
    "autorec": [{"input_dropout": 0.5}, {"dropout": 0.5}],
    "gbdt_lr": [{"leaves": 2, "trees": 30}],
}

# What else must be set for an option to matter.
NEEDS: dict[str, dict[str, Any]] = {
    "channels": {"fusion": "project"},
    "experts": {"low_rank": 3},
    "activate": {"activation": "tanh"},
    "gate": {"low_rank": 3, "experts": 2, "separate": True},
    "orders": {"separate": True},  # one order alone leaves eq. 5 nothing to weigh
    "dice": {"dicefactor": 0.3},
    "cross_activation": {"low_rank": 3},
}

# Another value of the options whose annotation does not say which one is possible and matters.
OTHER: dict[str, Any] = {
    "orders": [2],  # they rise up to the number of fields
    "attention_size": 10,  # the heads divide it
    "reduction": 1,  # any more leaves one unit for four fields
    "linear_layers": 1,
    "linear_dropout": 0.4,
    "gate1": ["user"],
    "gate2": ["item"],
    "trees": 7,
    "leaves": 5,
}


def options(name: str, **more: Any) -> dict[str, Any]:
    """SMALL and `more`, as far as the model takes them."""
    known = arguments(MODELS[name]) | arguments(with_neighbours)
    return {key: value for key, value in {**SMALL, **more}.items() if key in known}


def other(hint: Any, value: Any) -> Any:
    """Another value than this one that the annotation allows."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return next(member for member in get_args(hint) if member != value)
    if hint is bool:
        return not value
    if hint is int:
        return value + 1
    if hint is float:
        return value / 2 or 0.4
    if get_origin(hint) in (Sequence, list, tuple):
        return [*value, 2]  # one more layer
    raise TypeError(f"say in OTHER of model_options.py which other value than {value} to try")
