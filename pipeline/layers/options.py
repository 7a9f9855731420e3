"""Options that build their layer.

A model's signature is its config: it takes `embedding: Embed` and `network: Net` with the paper's defaults,
and params.yaml has their fields as flat keys (`embedding_size`, `hidden`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from inspect import isclass, signature
from typing import Any, ClassVar, NamedTuple, get_type_hints

from pipeline.common.ranges import Count, CountOrZero, NonNegative, Positive, Probability, Share, TwoOrMore
from pipeline.layers.embedding import FieldEmbedding, Transform
from pipeline.layers.mlp import MLP, Activation
from pipeline.schema import Schema

__all__ = [  # the ranges, too: a model's annotations
    "Argument",
    "Count",
    "CountOrZero",
    "Embed",
    "Net",
    "NonNegative",
    "Positive",
    "Probability",
    "Share",
    "TwoOrMore",
    "arguments",
    "grouped",
]


@dataclass(frozen=True)
class Embed:
    """How fields are embedded; `Embed(16)(schema)` is the layer.

    In params.yaml: `embedding_size`, `embedding_std`, `embedding_dropout`, `embedding_transform`.

    Attributes:
        size: D.
        std: standard deviation of the initial rows.
        dropout: probability with which a component of a vector is dropped in training.
        transform: a layer between the embedding and the model; see `FieldEmbedding`.
    """

    PREFIX: ClassVar = "embedding_"

    size: Count = 16
    std: NonNegative = 0.01
    dropout: Probability = 0.0
    transform: Transform = "none"

    def __call__(self, schema: Schema, size: int | None = None) -> FieldEmbedding:
        """Build the layer; `size` replaces D for a model that needs vectors of another size."""
        size = self.size if size is None else size
        return FieldEmbedding(schema, size, std=self.std, dropout=self.dropout, transform=self.transform)


@dataclass(frozen=True)
class Net:
    """Hidden layers; `Net((400, 400))(inputs)` is the MLP.

    In params.yaml: `hidden`, `dropout`, `batch_norm`, `activation`.

    Attributes:
        hidden: widths of the hidden layers.
        dropout: probability with which a hidden unit is dropped in training.
        batch_norm: whether there is batch norm between each linear layer and its activation.
        activation: after each hidden layer.
    """

    PREFIX: ClassVar = ""

    hidden: Sequence[Count] = (400, 400, 400)
    dropout: Probability = 0.0
    batch_norm: bool = False
    activation: Activation = "relu"

    def __call__(self, inputs: int, hidden: Sequence[int] | None = None) -> MLP:
        """Build the layers; `hidden` replaces the widths, for a model with a second network."""
        return MLP(
            inputs,
            self.hidden if hidden is None else hidden,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            activation=self.activation,
        )


class Argument(NamedTuple):
    """What a function accepts under one key of params.yaml.

    Attributes:
        hint: its type, annotated with the range.
        default: `inspect.Parameter.empty` if there is none.
        parameter: the function's parameter.
        field: of the parameter's dataclass; None if the key is the parameter itself.
    """

    hint: Any
    default: Any
    parameter: str
    field: str | None = None


@cache
def arguments(function: Callable[..., Any]) -> dict[str, Argument]:
    """Return the keyword-only arguments of a function or class, those of `Embed` and `Net` as flat keys."""
    hints = get_type_hints(function.__init__ if isclass(function) else function, include_extras=True)
    found = {}
    for name, parameter in signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        hint, default = hints[name], parameter.default
        if hint not in (Embed, Net):
            found[name] = Argument(hint, default, name)
            continue
        for field, inner in get_type_hints(hint, include_extras=True).items():
            if field != "PREFIX":
                found[hint.PREFIX + field] = Argument(inner, getattr(default, field), name, field)
    return found


def grouped(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments to call a function with, given the values of flat keys."""
    known, result = arguments(function), dict[str, Any]()
    fields: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        argument = known.get(key)
        if argument is None or argument.field is None:
            result[key] = value
        else:
            fields.setdefault(argument.parameter, {})[argument.field] = value
    for name, changes in fields.items():
        result[name] = replace(signature(function).parameters[name].default, **changes)
    return result
