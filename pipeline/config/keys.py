"""The key of params.yaml that was meant by one that it does not have."""

from collections.abc import Iterable
from difflib import get_close_matches

from pipeline.common.errors import unknown

# How other libraries call our keys; of several of ours, those that the block has are named.
SYNONYMS = {
    ("lr",): "learning_rate eta step_size lr_init",
    ("epochs",): "n_epochs num_epochs max_epochs nb_epoch",
    ("batch_size",): "batch bs minibatch_size train_batch_size",
    ("patience",): "early_stopping early_stopping_patience early_stopping_rounds early_stop_patience",
    ("embedding_l2", "linear_l2", "network_decay"): "weight_decay wd",
    ("embedding_l2", "linear_l2", "network_l2"): "l2 l2_reg l2_lambda reg_lambda",
    ("embedding_l2",): "l2_reg_embedding embedding_regularizer",
    ("linear_l2",): "l2_reg_linear",
    ("network_l2",): "l2_reg_dnn net_regularizer",
    ("clip_norm",): "grad_clip gradient_clip_val max_grad_norm max_gradient_norm",
    ("lr_factor",): "lr_decay reduce_lr_factor",
    ("seeds", "seed"): "seed random_seed random_state",
    ("threads",): "n_jobs num_threads num_workers",
    ("precision",): "amp dtype",
    ("monitor", "metric"): "metric eval_metric early_stop_metric",
    ("trials",): "n_trials num_trials",
    ("embedding_size",): "embedding_dim embed_dim emb_dim emb_size n_factors num_factors latent_dim",
    ("embedding_std",): "init_std",
    ("embedding_dropout",): "emb_dropout",
    ("hidden",): "hidden_units dnn_hidden_units hidden_sizes hidden_layers hidden_dims mlp_dims",
    ("dropout",): "dropout_rate drop_rate dnn_dropout net_dropout",
    ("batch_norm",): "bn use_bn batchnorm dnn_use_bn",
    ("activation",): "dnn_activation hidden_activations",
    ("heads",): "num_heads n_heads head_num att_head_num",
    ("test",): "test_size test_ratio",
    ("valid",): "val valid_size val_size validation validation_split",
}
MISLEADING = 0.6  # a word less alike than this says nothing about what was meant


def unknown_key(key: object, known: Iterable[str], *, kind: str = "key", of: str = "") -> str:
    """Return that there is no such key, and which one was meant, or else those that there are.

    Args:
        known: the keys of the block.
        of: what the block belongs to, such as ` of fm`.

    >>> unknown_key("learning_rate", ["lr", "lr_patience"])
    "unknown key 'learning_rate'; did you mean 'lr'?"
    """
    names = set(known)
    word = str(key).lower().replace("-", "_")
    meant = [ours for group, theirs in SYNONYMS.items() if word in theirs.split() for ours in group]
    meant = [repr(ours) for ours in meant if ours in names]
    if meant:
        listed = " or ".join(filter(None, (", ".join(meant[:-1]), meant[-1])))
        return f"unknown {kind} {key!r}{of}; did you mean {listed}?"
    if not get_close_matches(str(key), names, n=1, cutoff=MISLEADING):
        return f"unknown {kind} {key!r}{of} (valid: {', '.join(sorted(names)) or 'none'})"
    return unknown(kind, key, names).replace(repr(key), f"{key!r}{of}", 1)
