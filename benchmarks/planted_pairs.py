"""Do models that weight pairs of fields give weight to the pairs that were planted?

    python -m benchmarks.planted_pairs [model ...]      reads data/processed/synthetic; three minutes

The synthetic log plants four crosses of two fields (`pipeline/datasets/synthetic.py`). Each model is
trained with its defaults for that dataset, on every seed; then all pairs are ranked by the model's own
weights and by the effect on its logit:

attention, r      the model's weight of the pair, mean over the test rows
times the norm    that weight times the length of e_i * e_j, as in the heat maps of papers
centred           the same with each field's mean embedding subtracted: only what is a cross, since
                  <e_i, mean of e_j> is a function of field i alone
double difference of the logit when i, j or both are taken from another row: see `pipeline.explain.pairs`. It
                  needs no weights, so it measures the pair's effect in any model

The first column of numbers is the probability that a planted pair ranks above an `other` one, for the mean
over seeds (and for single seeds); then follows the rank of each planted pair, under its strength (standard
deviation in logits). Three kinds of pairs that may rank high with good reason are not in `other`. Users have
one age, gender and city, items one category, price and list of tags: if a user id replaces the age or an
item id the category, a pair can carry their cross (`stand-in`); if one field determines the other, it has
first-order effects only (`nested`). A pair inside a planted triple has no effect of its own, but its double
difference includes that of the triple.
"""

import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import metrics
from pipeline.config import params
from pipeline.data.batches import Split
from pipeline.datasets.synthetic import EFFECTS
from pipeline.explain import pairs
from pipeline.layers.pairs import Pairs
from pipeline.models import build
from pipeline.train.device import reproducible
from pipeline.train.loop import fit
from pipeline.train.predict import predict

PROCESSED = Path("data/processed/synthetic")
DECIDES = {"user": {"age", "gender", "city"}, "item": {"category", "tags", "price"}}
PLANTED = {frozenset(effect.fields): effect.std for effect in EFFECTS if len(effect.fields) == 2}
TRIPLES = {frozenset(effect.fields) for effect in EFFECTS if len(effect.fields) == 3}
# model, changes of its options, changes of those of the training
VARIANTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("fiinet", {}, {}),
    ("fiinet", {"fusion": "align"}, {}),
    ("fiinet", {"fusion": "align"}, {}),
    ("fiinet", {"fusion": "concat"}, {}),
    ("fwfm", {}, {}),
    ("afm", {}, {}),
    ("afm", {}, {"embedding_l2": 1e-5}),
    ("autoint", {}, {}),
    ("autoint", {}, {"embedding_l2": 1e-5}),
]
Scores = dict[str, Tensor]  # name of the score -> one number a pair (P,)


def kind(a: str, b: str) -> str:
    """Return the kind of a pair of fields: planted, in triple, stand-in, nested or other."""
    if frozenset((a, b)) in PLANTED:
        return "planted"
    if any({a, b} <= triple for triple in TRIPLES):
        return "in triple"
    if b in DECIDES.get(a, ()) or a in DECIDES.get(b, ()):
        return "nested"
    means = [{a, *DECIDES.get(a, ())}, {b, *DECIDES.get(b, ())}]
    if any(frozenset((x, y)) in PLANTED for x in means[0] for y in means[1]):
        return "stand-in"
    return "other"


def weighted(name: str, weight: Tensor, e: Tensor) -> Scores:
    """Return a weight (N, P) or (P,), alone and times the length of the products."""
    products = Pairs(e.shape[1]).hadamard
    found = {name: weight, "times the norm": weight * products(e).norm(dim=2)}
    found["centred"] = weight * products(e - e.mean(0)).norm(dim=2)
    return {key: value.reshape(-1, value.shape[-1]).mean(0) for key, value in found.items()}


def fiinet(model: Any, ids: Tensor) -> Scores:
    """Return each pair's gate: the mean of the order-2 gates of the channels that contain it."""
    e = model.embedding(ids)
    select = model.select
    branches = [bring(split(e)) for split, bring in zip(select.split, select.bring, strict=True)]
    if select.fusion == "concat":
        gates = select.weights([torch.cat(branches, 1)])[0][:, : len(select.split[0].weight)]
    else:
        inside = select.bring[0].inside
        gates = select.weights(branches)[0] @ (inside / inside.sum(0))
    found = weighted("attention", gates, e)
    w = select.split[0].weight.abs().squeeze(1)
    return {key: value if key == "attention" else w * value for key, value in found.items()}


def fwfm(model: Any, ids: Tensor) -> Scores:
    """Return the weight of each pair."""
    return weighted("size of r", model.r.abs(), model.embedding(ids))


def afm(model: Any, ids: Tensor) -> Scores:
    """Return the attention of each pair."""
    e = model.embedding(ids)
    a = model.h(torch.relu(model.w(model.pairs.hadamard(e)))).softmax(1).squeeze(2)
    return weighted("attention", a, e)


def autoint(model: Any, ids: Tensor) -> Scores:
    """Return the attention of i to j plus that of j to i, mean over heads, for each layer."""
    layers = model.attention(ids)
    pairs = Pairs(layers[0].shape[2])
    found = {}
    for number, weights in enumerate(layers, 1):
        a = weights.mean((0, 1))
        found[f"attention, layer {number}"] = a[pairs.first, pairs.second] + a[pairs.second, pairs.first]
    return found


SCORES: dict[str, Callable[[Any, Tensor], Scores]] = {
    "fiinet": fiinet,
    "fwfm": fwfm,
    "afm": afm,
    "autoint": autoint,
}


def double_difference(model: Any, rows: Split) -> Tensor:
    """Return the interaction of each pair (P,), squared: see `pipeline.explain.pairs`."""
    table = pairs(model, rows).set_index(["first", "second"])["interaction"]
    names = [field.name for field in rows.schema.fields]
    return torch.tensor(table.loc[list(combinations(names, 2))].to_numpy()).square()


def main(wanted: list[str]) -> None:
    """Train the models, rank the pairs and print a table."""
    train, valid, test = (Split.load(PROCESSED, part) for part in ("train", "valid", "test"))
    names = [field.name for field in train.schema.fields]
    every = list(combinations(names, 2))
    kinds = np.array([kind(a, b) for a, b in every])
    planted = [i for i, name in enumerate(kinds) if name == "planted"]
    label = test.label.numpy()
    print(f"{len(every)} pairs: " + ", ".join(f"{(kinds == k).sum()} {k}" for k in np.unique(kinds)))
    print(f"test AUC of the truth {metrics.auc(label, np.load(PROCESSED / 'test.truth.npy')):.4f}\n")
    heads = [f"{' x '.join(every[i])} ({PLANTED[frozenset(every[i])]})" for i in planted]
    print(f"| model | score | planted above other | {' | '.join(heads)} | first three |")
    print("|---|---|---:|" + "---:|" * len(heads) + "---|")
    for name, options, settings in VARIANTS:
        if wanted and name not in wanted:
            continue
        config = params.load().config("synthetic", name)
        reproducible(config.train.threads)
        scores: dict[str, list[Any]] = {}
        auc = []
        for seed in config.train.seeds:
            model = build(name, train.schema, {**config.model, **options}, seed=seed)
            fit(model, train, valid, seed=seed, **{**config.train.fit, **settings})
            auc.append(metrics.auc(label, predict(model, test).numpy()))
            with torch.inference_mode():
                found = SCORES[name](model, test.ids)
                found["double difference"] = double_difference(model, test)
            for key, value in found.items():
                scores.setdefault(key, []).append((value / value.sum()).numpy())
        changed = "".join(f", {key}={value}" for key, value in (options | settings).items())
        title = f"{name}{changed}, AUC {np.mean(auc):.4f}"
        for key, values in scores.items():
            value = np.mean(values, 0)
            order = np.argsort(-value)
            rank = np.argsort(order) + 1
            clear = np.isin(kinds, ("planted", "other"))
            each = [metrics.auc(kinds[clear] == "planted", one[clear]) for one in (value, *values)]
            above = f"{each[0]:.2f} ({min(each[1:]):.2f} to {max(each[1:]):.2f})"
            top = ", ".join(f"{' x '.join(every[i])} ({kinds[i]})" for i in order[:3])
            print(f"| {title} | {key} | {above} | {' | '.join(str(rank[i]) for i in planted)} | {top} |")


if __name__ == "__main__":
    main(sys.argv[1:])
