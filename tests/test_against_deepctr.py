"""Our models against an implementation by others: deepctr-torch with our weights gives our logits.

Each function below makes their model from ours, and says where the two are not the same function until
something is put right. Every number of theirs that is not copied is NaN (`blank`), so none is forgotten.
Compared are logits in evaluation mode, in float64; where dropout lies and how weights start differ.

AFN+, Wide & Deep's crosses, DCN-V2 stacked, FwFM's other linear terms and FiBiNET with SEST are not there,
and of these models nothing: disenctr, edcn, eulernet, fcn, fiinet, finalmlp, finalnet, flen, flsest,
gbdt_lr, gdcn, masknet, qnn, rankmixer, simcen, wukong. Nor is an implementation of them that we trust
installed; for them stand the naive loops from their papers' equations, in tests/models/.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from deepctr import (
    SparseFeat,
    VarLenSparseFeat,
    blank,
    columns,
    features,
    models,
    put,
    put_layer,
    put_mlp,
    put_out,
    put_table,
    tables,
    twin,
)
from loops import exact
from rows import SCHEMAS, random_ids, random_split, times
from torch import Tensor, nn

from pipeline.data.batches import Batch
from pipeline.layers.options import arguments
from pipeline.models import MODELS, build
from pipeline.schema import EMPTY, Field, Schema
from pipeline.train.loop import fit

D = 8  # not the number of fields, 4 or 6: axes that change places must show
HIDDEN = [6, 5]
SIZES = {"embedding_size": D, "hidden": HIDDEN}
FIELDS = SCHEMAS["no-bags"]
BAGS = Schema((*FIELDS.fields, Field("genres", 6, 3, "item"), Field("tags", 5, 2, "item")))
# heads * attention_size must be the embedding size there
ATTENTION = {"attention_size": 4, "heads": 2, "attention_layers": 2}
MIXTURE = {"low_rank": 3, "experts": 2}
Twin = Callable[[Any, Schema], Any]  # our model -> theirs, with our weights


def has_norm(mlp: nn.Module) -> bool:
    return any(isinstance(layer, nn.BatchNorm1d) for layer in mlp.modules())


def lr(ours: Any, schema: Schema) -> Any:
    """Their Wide & Deep without its deep part."""
    return twin(models.WDL, ours, schema, dnn_hidden_units=[])


def fm(ours: Any, schema: Schema) -> Any:
    """Their DeepFM without its deep part."""
    return twin(models.DeepFM, ours, schema, dnn_hidden_units=[])


def deepfm(ours: Any, schema: Schema) -> Any:
    """Term by term the same."""
    theirs = twin(models.DeepFM, ours, schema, dnn_hidden_units=HIDDEN, dnn_use_bn=has_norm(ours.mlp))
    put_layer(ours.out, theirs.dnn_linear)
    return theirs


def dnn(ours: Any, schema: Schema) -> Any:
    """Their Wide & Deep without its wide part; our last layer's bias is theirs."""
    theirs = twin(models.WDL, ours, schema, dnn_hidden_units=HIDDEN, dnn_use_bn=has_norm(ours.mlp))
    put_out(ours.out, theirs)
    return theirs


def nfm(ours: Any, schema: Schema) -> Any:
    """Term by term the same; they have no batch norm."""
    theirs = twin(models.NFM, ours, schema, dnn_hidden_units=HIDDEN)
    put_layer(ours.p, theirs.dnn_linear)
    return theirs


def autoint(ours: Any, schema: Schema) -> Any:
    """Heads side by side; they hold the projections transposed, and `scaling` is no option of the model.

    Theirs starts with a linear term, which is left out, and reads attention and network with one layer.
    """
    hidden = HIDDEN if ours.plus else []
    theirs = twin(models.AutoInt, ours, schema, dnn_hidden_units=hidden, att_layer_num=2, att_head_num=2)
    for layer, other in zip(ours.layers, theirs.int_layers, strict=True):
        for part, matrix in (
            (layer.query, other.W_Query),
            (layer.key, other.W_key),
            (layer.value, other.W_Value),
            (layer.residual, other.W_Res),
        ):
            put(part.weight.T, matrix)
        other.scaling = layer.scale != 1
    weight = ours.out.weight
    if ours.plus:
        put_mlp(ours.plus[0], theirs.dnn)
        weight = torch.cat([weight, ours.plus[1].weight], 1)
    put(weight, theirs.dnn_linear.weight)
    put(ours.out.bias, theirs.out.bias)
    return theirs


def fibinet(ours: Any, schema: Schema) -> Any:
    """They have one set of bilinear matrices for E and V and put V first; ours get the same matrices."""
    f = len(schema.fields)
    with torch.no_grad():
        ours.bilinear[1].weight.copy_(ours.bilinear[0].weight)
    kind = {1: "all", f - 1: "each"}.get(len(ours.bilinear[0].weight), "interaction")
    theirs = twin(models.FiBiNET, ours, schema, bilinear_type=kind, dnn_hidden_units=HIDDEN)
    put_layer(ours.excite.reweight.w1, theirs.SE.excitation[0])
    put_layer(ours.excite.reweight.w2, theirs.SE.excitation[2])
    matrices = [theirs.Bilinear.bilinear] if kind == "all" else theirs.Bilinear.bilinear
    # with `each` they also have a matrix of the last field, which is in no pair the left one
    for w, other in zip(ours.bilinear[0].weight, matrices, strict=kind != "each"):
        put(w.T, other.weight)
    first = theirs.dnn.linears[0].weight
    put(first.detach().roll(f * (f - 1) // 2 * D, 1), first)
    put_layer(ours.out, theirs.dnn_linear)
    return theirs


def wide_deep(ours: Any, schema: Schema) -> Any:
    """Term by term the same; crosses would be columns made beforehand."""
    theirs = twin(models.WDL, ours, schema, dnn_hidden_units=HIDDEN)
    put_layer(ours.out, theirs.dnn_linear)
    return theirs


def pnn(ours: Any, schema: Schema) -> Any:
    """They take the pairs i < j only, so each field comes twice: (i, i + F) is i with itself.

    Their outer product has one kernel a pair, whatever the unit that reads it, and no superposition. For
    a single unit that is the paper's sum, written out.
    """
    f, d1 = len(schema.fields), ours.linear_signals.out_features
    inner = next((signals.weight.detach() for signals in ours.products if "Inner" in str(signals)), None)
    outer = next((signals.weight.detach() for signals in ours.products if "Outer" in str(signals)), None)
    theirs = twin(
        models.PNN,
        ours,
        schema,
        twice=True,
        dnn_hidden_units=[d1, HIDDEN[1]],
        dnn_activation="sigmoid",
        use_inner=inner is not None,
        use_outter=outer is not None,
    )
    pairs = list(combinations(range(2 * f), 2))
    count = [
        2.0 if j < f else float(j == i + f) for i, j in pairs
    ]  # ij and ji; once ii; the rest is left out
    z = ours.linear_signals
    first = [z.weight, torch.zeros_like(z.weight)]
    if inner is not None:
        square = inner.shape[1] == f * f
        w = inner.unflatten(1, (f, f)) if square else inner.unsqueeze(2) * inner.unsqueeze(1)
        w = (w + w.mT) / 2
        first.append(torch.stack([c * w[:, i % f, j % f] for c, (i, j) in zip(count, pairs, strict=True)], 1))
    if outer is not None:
        w = outer.reshape(D, D)
        w = (w + w.mT) / 2
        put(torch.stack([c * w for c in count], 1), theirs.outterproduct.kernel)
        first.append(torch.ones(d1, len(pairs)))
    put(torch.cat(first, 1), theirs.dnn.linears[0].weight)
    put(z.bias, theirs.dnn.linears[0].bias)
    put_out(ours.out, theirs)
    return theirs


def dcn(ours: Any, schema: Schema) -> Any:
    """Term by term the same, without the linear term that theirs adds; both keep x0."""
    theirs = twin(models.DCN, ours, schema, cross_num=2, dnn_hidden_units=HIDDEN)
    for layer, kernel, bias in zip(ours.cross, theirs.crossnet.kernels, theirs.crossnet.bias, strict=True):
        put(layer.w.weight.T, kernel)
        put(layer.b.unsqueeze(1), bias)
    put_out(ours.out, theirs)
    return theirs


def dcnv2(ours: Any, schema: Schema) -> Any:
    """Term by term the same, without the linear term that theirs adds."""
    options = {"cross_parameterization": "matrix", "dnn_hidden_units": HIDDEN}
    theirs = twin(models.DCN, ours, schema, cross_num=2, **options)
    for layer, kernel, bias in zip(ours.cross, theirs.crossnet.kernels, theirs.crossnet.bias, strict=True):
        put(layer.w.weight, kernel)
        put(layer.w.bias.unsqueeze(1), bias)
    put_out(ours.out, theirs)
    return theirs


def dcnv2_mixture(ours: Any, schema: Schema) -> Any:
    """They have one gate for all layers, so ours get the same; again without the linear term."""
    rank, experts = MIXTURE["low_rank"], MIXTURE["experts"]
    for layer in ours.cross:
        layer.gate = ours.cross[0].gate
    options = {"low_rank": rank, "num_experts": experts, "dnn_hidden_units": HIDDEN}
    theirs = twin(models.DCNMix, ours, schema, cross_num=2, **options)
    net = theirs.crossnet
    for k, layer in enumerate(ours.cross):
        put(layer.v.weight.unflatten(0, (experts, rank)).mT, net.V_list[k])
        put(layer.c, net.C_list[k])
        put(layer.u.weight.unflatten(1, (experts, rank)).transpose(0, 1), net.U_list[k])
        put(layer.b.unsqueeze(1), net.bias[k])
    for gate, weight in zip(net.gating, ours.cross[0].gate.weight, strict=True):
        put(weight.unsqueeze(0), gate.weight)
    put_out(ours.out, theirs)
    return theirs


def xdeepfm(ours: Any, schema: Schema) -> Any:
    """Their CIN has a bias a channel, which the paper has not: it is put to zero."""
    theirs = twin(
        models.xDeepFM,
        ours,
        schema,
        dnn_hidden_units=HIDDEN,
        cin_layer_size=[w.out_features for w in ours.cin.w],
        cin_split_half=ours.cin.split_half,
        cin_activation="relu" if ours.cin.relu else "linear",
    )
    for w, conv in zip(ours.cin.w, theirs.cin.conv1ds, strict=True):
        put(w.weight.unsqueeze(2), conv.weight)
        put(torch.zeros(w.out_features), conv.bias)
    put_layer(ours.w_cin, theirs.cin_linear)
    put_layer(ours.w_dnn, theirs.dnn_linear)
    return theirs


def mf(ours: Any, schema: Schema) -> Any:
    """Their DeepFM without its deep part, on two columns: a single pair."""
    both = Schema((schema.fields[0], schema.fields[1]))
    theirs = twin(models.DeepFM, ours, both, dnn_hidden_units=[])
    theirs.register_forward_pre_hook(lambda _, inputs: inputs[0][:, :2])
    return theirs


def afm(ours: Any, schema: Schema) -> Any:
    """Term by term the same; they hold W transposed."""
    theirs = twin(models.AFM, ours, schema, attention_factor=ours.w.out_features)
    put(ours.w.weight.T, theirs.fm.attention_W)
    put(ours.w.bias, theirs.fm.attention_b)
    put(ours.h.weight.T, theirs.fm.projection_h)
    put(ours.p.unsqueeze(1), theirs.fm.projection_p)
    return theirs


def fnn(ours: Any, schema: Schema) -> Any:
    """Their Wide & Deep without its wide part, on w and v end to end; w0 joins the first biases."""
    cols = columns(schema, 1 + D)
    theirs = blank(models.WDL([], cols, dnn_hidden_units=HIDDEN, task="regression"))
    put_table(torch.cat([ours.w.table, ours.v.table], 1), schema, theirs.embedding_dict)
    first, *rest = ours.mlp
    put(first.weight[:, 1:], theirs.dnn.linears[0].weight)
    put(first.bias + first.weight[:, 0] * ours.w0, theirs.dnn.linears[0].bias)
    put_mlp(rest, theirs.dnn)
    put_out(ours.out, theirs)
    return theirs


Read = Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]


def pairs(ours: Any, schema: Schema, read: Read) -> Any:
    """Their ONN, its network a plain sum: it has two tables for each pair of fields, which can be anything.

    `read` makes those of fields i and j from our two tables.
    """
    cols = columns(schema, D)
    options = {"dnn_hidden_units": [1], "dnn_activation": "linear", "task": "regression"}
    theirs = blank(models.ONN(cols, cols, **options))
    put_table(ours.linear.table, schema, theirs.linear_model.embedding_dict)
    put(ours.linear.bias, theirs.out.bias[0])
    e = tables(ours.embedding.table, schema)
    each = zip(combinations(range(len(e)), 2), theirs.second_order_embedding_dict.values(), strict=True)
    for (i, j), pair in each:
        left, right = read(e[i], e[j], i, j)
        put(left, pair.emb1.weight)
        put(right, pair.emb2.weight)
    add = theirs.dnn.linears[0]
    put(torch.ones_like(add.weight), add.weight)
    put([0.0], add.bias)
    put([[1.0]], theirs.dnn_linear.weight)
    return theirs


def ffm(ours: Any, schema: Schema) -> Any:
    """The table of a field in a pair is what it has towards the other one."""
    f = len(schema.fields)

    def read(a: Tensor, b: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        return a.unflatten(1, (f, D))[:, j], b.unflatten(1, (f, D))[:, i]

    return pairs(ours, schema, read)


def fwfm(ours: Any, schema: Schema) -> Any:
    """The weight of a pair goes into one of its tables."""
    r = iter(ours.r)
    return pairs(ours, schema, lambda a, b, i, j: (next(r) * a, b))


def fmfm(ours: Any, schema: Schema) -> Any:
    """The matrix of a pair goes into one of its tables."""
    m = iter(ours.matrix)
    return pairs(ours, schema, lambda a, b, i, j: (a @ next(m), b))


def onn(ours: Any, schema: Schema) -> Any:
    """They have pairs only, and as vectors, so the copies are pairs with a field that is always 1.

    An inner product is the sum of that vector: its weight stands D times there.
    """
    f = len(schema.fields)
    cols = columns(Schema((*schema.fields, Field("one", 1))), D)
    theirs = blank(models.ONN([], cols, dnn_hidden_units=HIDDEN, task="regression"))
    theirs.register_forward_pre_hook(lambda _, inputs: torch.nn.functional.pad(inputs[0], (0, 1)))
    e = [table.unflatten(1, (f, D)) for table in tables(ours.embedding.table, schema)]
    first, *rest = ours.mlp
    copies, products = first.weight.tensor_split([f * D], 1)
    copies = copies.unflatten(1, (f, D))
    products = iter(products.split(D if ours.product == "hadamard" else 1, 1))
    weights = []
    each = zip(combinations(range(f + 1), 2), theirs.second_order_embedding_dict.values(), strict=True)
    for (i, j), pair in each:
        copy = j == f
        put(e[i][:, i] if copy else e[i][:, j], pair.emb1.weight)
        put(torch.ones(1, D) if copy else e[j][:, i], pair.emb2.weight)
        weights.append(copies[:, i] if copy else next(products).expand(-1, D))
    put(torch.cat(weights, 1), theirs.dnn.linears[0].weight)
    put(first.bias, theirs.dnn.linears[0].bias)
    put_mlp(rest, theirs.dnn)
    put_out(ours.out, theirs)
    return theirs


def afn(ours: Any, schema: Schema) -> Any:
    """Their batch norms of logarithms are over components, ours over fields: all get the same numbers.

    Their neurons have biases, which the paper has not, and their last layer a second one: put to zero.
    """
    neurons = len(ours.w)
    options = {"ltl_hidden_size": neurons, "afn_dnn_hidden_units": HIDDEN}
    theirs = twin(models.AFN, ours, schema, **options)
    put(ours.w.T, theirs.ltl.ltl_weights)
    put(torch.zeros(1, 1, neurons), theirs.ltl.ltl_biases)
    for norm, other in zip((ours.norm_ln, ours.norm_exp), theirs.ltl.bn, strict=True):
        for layer in (norm, other):
            for key, value in (("weight", 0.7), ("bias", -0.2), ("running_mean", 0.3), ("running_var", 1.9)):
                getattr(layer, key).detach().fill_(value)
    put_mlp(ours.mlp, theirs.afn_dnn)
    first = ours.mlp[0].weight.unflatten(1, (neurons, D))  # theirs reads component by component
    put(first.mT.flatten(1), theirs.afn_dnn.linears[0].weight)
    put(ours.out.weight, theirs.afn_dnn_linear.weight)
    put(ours.out.bias, theirs.afn_dnn_linear.bias)
    # max(|e|, 1e-4) is ours, max(|e|, 1e-7) theirs: no embedding here is that small
    assert ours.embedding.table[1:].abs().min() > 1e-4
    return theirs


# our model and its options, theirs with our weights, whose rows
TWINS: list[tuple[str, dict[str, Any], Twin, Schema]] = [
    ("lr", {}, lr, BAGS),
    ("fm", {}, fm, FIELDS),
    ("deepfm", {}, deepfm, FIELDS),
    ("deepfm", {"batch_norm": True}, deepfm, FIELDS),
    ("dnn", {}, dnn, BAGS),
    ("dnn", {"batch_norm": True}, dnn, BAGS),
    ("wide_deep", {}, wide_deep, BAGS),
    ("nfm", {}, nfm, FIELDS),
    ("mf", {}, mf, Schema(FIELDS.fields[:3])),
    ("afm", {"attention_size": 3}, afm, BAGS),
    ("fnn", {"activation": "relu"}, fnn, BAGS),
    ("ffm", {}, ffm, FIELDS),
    ("fwfm", {"linear": "lw"}, fwfm, FIELDS),
    ("fmfm", {}, fmfm, FIELDS),
    ("onn", {"product": "inner"}, onn, FIELDS),
    ("onn", {"product": "hadamard"}, onn, FIELDS),
    ("afn", {"neurons": 3, "batch_norm": True}, afn, FIELDS),
    ("dcn", {"cross_layers": 2}, dcn, BAGS),
    ("dcnv2", {"cross_layers": 2}, dcnv2, BAGS),
    ("dcnv2", {"cross_layers": 2, **MIXTURE}, dcnv2_mixture, BAGS),
    ("xdeepfm", {"cin": [6, 4, 3]}, xdeepfm, BAGS),
    ("xdeepfm", {"cin": [6, 4, 3], "split_half": True, "cin_activation": "relu"}, xdeepfm, BAGS),
    ("pnn", {"product": "inner", "factorized": True, "activation": "sigmoid"}, pnn, FIELDS),
    ("pnn", {"product": "inner", "factorized": False, "activation": "sigmoid"}, pnn, FIELDS),
    ("pnn", {"product": "outer", "hidden": [1, 5], "activation": "sigmoid"}, pnn, FIELDS),
    ("pnn", {"product": "both", "hidden": [1, 5], "activation": "sigmoid"}, pnn, FIELDS),
    ("autoint", ATTENTION, autoint, BAGS),
    ("autoint", {**ATTENTION, "hidden": []}, autoint, BAGS),
    ("autoint", {**ATTENTION, "scaling": True}, autoint, BAGS),
    ("fibinet", {"kind": "interaction"}, fibinet, BAGS),
    ("fibinet", {"kind": "each"}, fibinet, BAGS),
    ("fibinet", {"kind": "all"}, fibinet, BAGS),
]


def label(case: tuple[str, dict[str, Any], Twin, Schema]) -> str:
    name, options, _, _ = case
    return ",".join([name, *(f"{key}={value}" for key, value in options.items())])


def awake(name: str, options: dict[str, Any], schema: Schema) -> Any:
    """Our model in float64 with no number left at its start, the statistics of batch norms included."""
    known = arguments(MODELS[name])
    sizes = {key: value for key, value in SIZES.items() if key in known}
    model = exact(build(name, schema, {**sizes, **options}, seed=1))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize(("name", "options", "copy", "schema"), TWINS, ids=map(label, TWINS))
def test_the_same_weights_give_the_same_logits(
    name: str, options: dict[str, Any], copy: Twin, schema: Schema
) -> None:
    ours, ids = awake(name, options, schema), random_ids(schema, 50)
    theirs = copy(ours, schema)
    torch.testing.assert_close(ours(ids), theirs(features(schema, ids)).squeeze(1))


@pytest.mark.parametrize("normalise", [False, True])
def test_din(normalise: bool) -> None:
    """Theirs is handed the past as one more column, padded with 0 in the item's table; ours looks it up.

    Their activation unit reads [v, h, v - h, h * v], ours [h, h - v, h * v, v].
    """
    n, past = 3, random_split(FIELDS, 40)
    options = {"history": n, "attention_hidden": [5], "normalise": normalise}
    ours, ids = awake("din", options, FIELDS), random_ids(FIELDS, 50)
    ours.prepare(Batch(past.ids, past.label, past.time), lambda other: None)
    history = ours.interests[0].memory.recent(ids[:, ours.user], times(ids), n)[0]
    length = (history != EMPTY).sum(1, keepdim=True)
    assert length.unique().tolist() == [0, 1, 2, 3]

    item = FIELDS.fields[ours.item]
    padded = SparseFeat(item.name, item.size + 1, D)
    cols = [padded if column.name == item.name else column for column in columns(FIELDS, D)]
    before = SparseFeat(f"hist_{item.name}", item.size + 1, D, embedding_name=item.name)
    cols.append(VarLenSparseFeat(before, n, "sum", length_name="length"))
    theirs = blank(
        models.DIN(
            cols,
            [item.name],
            dnn_hidden_units=HIDDEN,
            att_hidden_size=[5],
            att_activation="relu",
            att_weight_normalization=normalise,
            task="regression",
        )
    )
    for field, rows in zip(FIELDS.fields, tables(ours.embedding.table, FIELDS), strict=True):
        empty = ours.embedding.table[: field is item]
        put(torch.cat([empty, rows]), theirs.embedding_dict[field.name].weight)
    unit = theirs.attention.local_att
    put_mlp(ours.interests[0].unit[0], unit.dnn)
    h, difference, product, v = ours.interests[0].unit[0][0].weight.chunk(4, 1)
    put(torch.cat([v, h, -difference, product], 1), unit.dnn.linears[0].weight)
    put_layer(ours.interests[0].unit[1], unit.dense)
    put_mlp(ours.mlp, theirs.dnn)
    put_out(ours.out, theirs)

    x = features(FIELDS, ids)
    x[:, ours.item] += 1
    history = torch.where(history == EMPTY, 0, history - FIELDS.offsets[ours.item] + 1)
    expected = theirs(torch.cat([x, history.double(), length.double()], 1)).squeeze(1)
    torch.testing.assert_close(ours(ids, times(ids)), expected)


# ---- where theirs goes wrong, and ours does not ----


def test_dropout_stays_on_after_a_validation() -> None:
    """Their `fit` scores the validation rows in evaluation mode and never leaves it again.

    From the second epoch on it trains without dropout and with the batch norms frozen, so what it
    reaches is no reference for what ours reaches: only logits are compared here.
    """
    cols = columns(FIELDS, D)
    theirs = models.DeepFM(cols, cols, dnn_hidden_units=HIDDEN, dnn_dropout=0.5)
    theirs.compile("adam", "binary_crossentropy", [])
    rows = random_split(FIELDS, 64)
    x, y = features(FIELDS, rows.ids).numpy(), rows.label.numpy()
    seen: list[tuple[bool, bool]] = []  # (gradients are on, dropout is on)
    theirs.dnn.dropout.register_forward_hook(
        lambda module, *_: seen.append((torch.is_grad_enabled(), module.training))
    )
    theirs.fit(list(x.T), y, batch_size=64, epochs=3, verbose=0, validation_data=(list(x.T), y))
    assert [mode for learning, mode in seen if learning] == [True, True, False, False, False, False]

    ours = build("deepfm", FIELDS, {"embedding_size": D, "hidden": HIDDEN}, seed=1)
    seen.clear()
    ours.mlp.register_forward_hook(lambda module, *_: seen.append((torch.is_grad_enabled(), module.training)))
    fit(ours, rows, rows, seed=1, epochs=3, batch_size=64, patience=9)
    scored = [(False, False)] * 2  # train rows, whose mean prediction is put right, and validation rows
    assert seen == [(False, False), *[(True, True), *scored] * 3], "first comes the start"


def test_a_batch_of_one() -> None:
    """Their mixture of cross layers squeezes every axis of size one, the batch too, and then fails."""
    ours = awake("dcnv2", {"cross_layers": 2, **MIXTURE}, FIELDS)
    theirs, ids = dcnv2_mixture(ours, FIELDS), random_ids(FIELDS, 2)
    with pytest.raises(RuntimeError, match="dimension"):
        theirs(features(FIELDS, ids[:1]))
    torch.testing.assert_close(ours(ids[:1]), theirs(features(FIELDS, ids))[:1, 0])


def test_ids_above_2_to_the_24_stay_apart() -> None:
    """Their `fit` and `predict` turn ids into float32, where 2^24 and 2^24 + 1 are one number.

    Ours are integers all the way, which test_models.py holds every model to.
    """
    cols = columns(FIELDS, D)
    theirs = models.WDL(cols, cols, dnn_hidden_units=HIDDEN)
    seen = []
    theirs.forward = lambda x: seen.append(x) or x[:, :1]
    theirs.predict([np.array([2**24, 2**24 + 1])] * 4)
    assert torch.equal(seen[0][0], seen[0][1])
