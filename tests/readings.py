"""What test_models.py tries of every model beside its defaults; a new model or option adds a line."""

from typing import Any

# The readings and ablations that each model has beside its defaults.
READINGS: dict[str, list[dict[str, Any]]] = {
    "deepfm": [{"hidden": []}, {"activation": "tanh"}],
    "fiinet": [
        {"gate": "sigmoid"},
        {"squeeze": "max"},
        {"attention": False},
        {"orders": [2]},
        {"orders": [3]},
        {"fusion": "project", "channels": 5},
        {"fusion": "project", "channels": 5, "squeeze": "max"},
        {"fusion": "project", "channels": 5, "attention": False},
        {"fusion": "align"},
        {"fusion": "align", "attention": False},
        {"hidden": []},
    ],
    "flsest": [
        {"merge": "concat"},
        {"threshold": "relu"},
        {"merge": "concat", "threshold": "relu"},
        {"use_fwbi": False},
        {"use_mlp": False},
        {"use_sest": False},
        {"use_fwbi": False, "use_sest": False},
        {"use_mlp": False, "use_sest": False},
        {"use_mlp": False, "merge": "concat"},
        {"reduction": 1},
        {"dicefactor": 0.3},
    ],
}

# What else must be set for an option to matter.
NEEDS: dict[str, dict[str, Any]] = {"channels": {"fusion": "project"}}

# Another value of each option than its default; `model.option` where a model needs one of its own.
OTHER: dict[str, Any] = {
    "embedding_size": 5,
    "embedding_std": 0.2,
    "hidden": [3],
    "dropout": 0.4,
    "embedding_dropout": 0.4,
    "embedding_transform": "sest",
    "dicefactor": 0.4,
    "reduction": 1,
    "merge": "concat",
    "threshold": "relu",
    "use_fwbi": False,
    "use_mlp": False,
    "use_sest": False,
    "batch_norm": True,
    "activation": "tanh",
    "orders": [2],
    "fusion": "align",
    "gate": "sigmoid",
    "channels": 7,
    "squeeze": "max",
    "attention": False,
}
