"""FLSEST: Chen, He and Zhou, "FLSEST: CTR model based on important features and soft threshold", 2026. Its
Tables 1 to 5 and Figures 5 to 9.
"""  # noqa: D205

from collections.abc import Mapping

from pipeline.papers.exhibit import UNSAID, Block, Claim, Exhibit, Figures, Ours, Row, Sweep

PAPER = "FLSEST (Chen, He and Zhou, 2026)"
SOURCES = ("movielens-100k", "movielens-1m", "avazu-1m")
# AUC and logloss on MovieLens-100K, MovieLens-1M, Avazu
TABLE_1 = {
    "NFM": ("nfm", 0.7816, 0.5585, 0.8096, 0.5210, 0.7617, 0.3787),
    "DeepFM": ("deepfm", 0.7825, 0.5583, 0.8123, 0.5179, 0.7608, 0.3812),
    "xDeepFM": ("xdeepfm", 0.7846, 0.5562, 0.8139, 0.5174, 0.7613, 0.3815),
    "FiBiNET": ("fibinet", 0.7818, 0.5559, 0.8127, 0.5184, 0.7624, 0.3781),
    "FLEN": ("flen", 0.7838, 0.5557, 0.8145, 0.5156, 0.7612, 0.3840),
    "EDCN": ("edcn", 0.7843, 0.5548, 0.8153, 0.5151, 0.7628, 0.3775),
    "FinalMLP": ("finalmlp", 0.7856, 0.5546, 0.8156, 0.5143, 0.7636, 0.3774),
    "DisenCTR": ("disenctr", 0.7849, 0.5552, 0.8150, 0.5154, 0.7622, 0.3780),
    "FLSEST": ("flsest", 0.7859, 0.5532, 0.8161, 0.5132, 0.7629, 0.3778),
}
TABLE_2 = {
    "FM": ("fm", 0.7620, 0.5679, 0.8033, 0.5302, 0.7570, 0.3920),
    "FM+SEST": ("fm-sest", 0.7792, 0.5608, 0.8080, 0.5256, 0.7604, 0.3865),
    "FwFM": ("fwfm", 0.7795, 0.5615, 0.8068, 0.5249, 0.7595, 0.3846),
    "FwFM+SEST": ("fwfm-sest", 0.7811, 0.5590, 0.8111, 0.5220, 0.7611, 0.3821),
}
TABLE_3 = {
    "NFM": ("nfm", 0.7816, 0.5585, 0.8096, 0.5210, 0.7617, 0.3787),
    "NFM+SEST": ("nfm-sest", 0.7832, 0.5582, 0.8112, 0.5201, 0.7622, 0.3773),
    "DeepFM": ("deepfm", 0.7825, 0.5583, 0.8123, 0.5179, 0.7608, 0.3812),
    "DeepFM+SEST": ("deepfm-sest", 0.7836, 0.5579, 0.8134, 0.5173, 0.7618, 0.3776),
}
# AUC, logloss and megabytes of the weights on the same three
TABLE_4 = {
    "FwFM+SENET": ("fwfm-senet", 0.7806, 0.5598, 0.47, 0.8083, 0.5255, 1.03, 0.7604, 0.3838, 19.4),
    "FwFM+SEST": ("fwfm-sest", 0.7811, 0.5590, 0.51, 0.8111, 0.5220, 1.07, 0.7611, 0.3821, 19.7),
    "FiBiNET": ("fibinet", 0.7818, 0.5559, 1.31, 0.8127, 0.5184, 1.87, 0.7624, 0.3781, 36.9),
    "FiBiSEST": ("fibinet-sest", 0.7839, 0.5537, 1.51, 0.8145, 0.5153, 2.07, 0.7632, 0.3776, 39.4),
}
TABLE_5 = {
    "FwBI": ("flsest-fwbi", 0.7797, 0.5612, None, None, 0.7598, 0.3839),
    "MLP": ("flsest-mlp", 0.7806, 0.5595, 0.8078, 0.5238, 0.7609, 0.3814),
    "FwBI+SEST": ("flsest-fwbi-sest", 0.7809, 0.5591, 0.8125, 0.5211, 0.7608, 0.3815),
    "MLP+SEST": ("flsest-mlp-sest", 0.7831, 0.5561, 0.8135, 0.5184, 0.7622, 0.3792),
    "FLSEST": ("flsest", 0.7859, 0.5532, 0.8161, 0.5132, 0.7629, 0.3778),
}
# ours: one copy of both parts, and two that read the same embedding, without SEST
CONTROLS = (Row("FwBI+MLP", "flsest-fwbi-mlp"), Row("FwBI+MLP twice", "flsest-same"))
NOISE = (
    "The AUC of one model has a standard error of about .005 on one test part of MovieLens-100K (users are "
    "drawn, not rows), and of about .002 on MovieLens-1M. That of a difference on the same rows is smaller."
)
FIELDS = (
    "The paper names user id, gender, age, occupation, movie id, title and category as fields of MovieLens; "
    "ours are those of pipeline/datasets/."
)
ASSUMED = (
    "Not in the paper and taken from its authors' code: three layers of 200, dropout .5, L2 of 1e-5 (linear) "
    "and 1e-6 (embeddings) times the sum of squares, embeddings from N(0, 1e-4). The epoch that is kept is "
    "the best on validation rows."
)
PICTURE = "The paper's figure is a picture without numbers that could be compared."
DECAY = Ours(
    {"network_l2": 0.0, "network_decay": 0.5},
    "Our defaults have `network_decay: 0.5` here, in the place of `network_l2: 1.0e-3`, for every model: "
    "that L2 was chosen for one layer of 64, and switches three of 200 off in FiBiNET, xDeepFM and FLEN.",
)
DEEP = ("NFM", "DeepFM", "xDeepFM", "FiBiNET", "FLEN", "FinalMLP", "FLSEST")


def settings(source: str) -> Block:
    """Return what section 4.3.1 says, and the authors' code where it is silent."""
    return {
        "model": {
            "embedding_size": 16,
            "hidden": [200, 200, 200],
            "dropout": 0.5,
            "embedding_dropout": 0.0,
            "embedding_std": 1.0e-4,
        },
        "train": {
            "epochs": 100,
            "patience": 100,
            "batch_size": 64 if source == "movielens-100k" else 128,
            "min_steps_per_epoch": 0,
            "lr": 1.0e-5,
            "embedding_l2": 2.0e-6,
            "linear_l2": 2.0e-5,
            "network_l2": 0.0,
            "network_decay": 0.0,
            "l2_rows": 0,
            "average_epochs": 0.0,
            **UNSAID,
        },
    }


def _rows(table: Mapping[str, tuple[str, *tuple[float | None, ...]]], width: int = 2) -> tuple[Row, ...]:
    rows = []
    for label, (model, *values) in table.items():
        figures = (Figures(*values[i : i + width]) for i in range(0, len(values), width))
        rows.append(Row(label, model, dict(zip(SOURCES, figures, strict=True))))
    return tuple(rows)


def _table(
    number: int,
    title: str,
    rows: tuple[Row, ...],
    claims: tuple[Claim, ...],
    *notes: str,
    controls: tuple[str, ...] = (),
) -> Exhibit:
    return Exhibit(
        name=f"flsest-table-{number}",
        title=title,
        paper=f"{PAPER}, Table {number}",
        sources=SOURCES,
        rows=rows,
        settings=settings,
        claims=claims,
        controls=controls,
        notes=(*notes, FIELDS, NOISE),
        assumed=(ASSUMED,),
    )


def _figure(
    number: int, title: str, labels: tuple[str, ...], sweep: Sweep, *notes: str, ours: Ours | None = None
) -> Exhibit:
    return Exhibit(
        name=f"flsest-figure-{number}",
        title=title,
        paper=f"{PAPER}, Figure {number}",
        sources=("movielens-1m",),
        rows=tuple(Row(label, TABLE_1[label][0]) for label in labels),
        settings=settings,
        sweep=sweep,
        ours=ours,
        notes=(*notes, PICTURE),
        assumed=(ASSUMED,),
    )


def _hidden(*shapes: tuple[int, int]) -> tuple[list[int], ...]:
    return tuple([width] * depth for width, depth in shapes)


EXHIBITS = (
    _table(
        1,
        "FLSEST beside eight models",
        _rows(TABLE_1),
        tuple(Claim("FLSEST", label) for label in TABLE_1 if label != "FLSEST"),
        "On Avazu the paper's own table has FinalMLP ahead of FLSEST.",
    ),
    _table(
        2,
        "SEST before shallow models",
        _rows(TABLE_2),
        (Claim("FM+SEST", "FM"), Claim("FwFM+SEST", "FwFM")),
    ),
    _table(
        3,
        "SEST before deep models",
        _rows(TABLE_3),
        (Claim("NFM+SEST", "NFM"), Claim("DeepFM+SEST", "DeepFM")),
    ),
    _table(
        4,
        "SEST in the place of SENET",
        _rows(TABLE_4, 3),
        (Claim("FwFM+SEST", "FwFM+SENET"), Claim("FiBiSEST", "FiBiNET")),
        "The paper's first row says FwFM+SEST twice; its text says that the first is FwFM+SENET.",
        "Size: float32 weights in megabytes; the paper's depends on the fields it used.",
    ),
    _table(
        5,
        "FLSEST without some of its parts",
        (*_rows(TABLE_5), *CONTROLS),
        (
            *(Claim("FLSEST", label) for label in TABLE_5 if label != "FLSEST"),
            Claim("FwBI+SEST", "FwBI"),
            Claim("MLP+SEST", "MLP"),
            *(Claim("FLSEST", row.label) for row in CONTROLS),
        ),
        "The check marks of the printed table are lost: which row is which is our reading, by their order. "
        "The first row of MovieLens-1M repeats that of MovieLens-100K and is left out.",
        "FwBI+MLP, once and twice on the same embedding, are ours, not the paper's. Twice it has the size of "
        "FLSEST: what FLSEST gains or loses beside it is owed to SEST.",
        controls=tuple(row.label for row in CONTROLS),
    ),
    _figure(
        5,
        "Width of the network",
        DEEP,
        Sweep(
            "model.hidden",
            _hidden(*((w, 3) for w in (50, 100, 200, 300))),
            ("50", "100", "200", "300"),
            2,
            axis="width of three layers",
        ),
        "All three layers have the width; the paper speaks of the second and of each layer.",
        ours=DECAY,
    ),
    _figure(
        6,
        "Depth of the network",
        DEEP,
        Sweep(
            "model.hidden",
            _hidden(*((200, d) for d in (1, 2, 3, 4, 5))),
            ("1", "2", "3", "4", "5"),
            axis="layers of 200",
        ),
        "The paper says that AUC first rises and then falls, not where.",
        ours=DECAY,
    ),
    _figure(
        7,
        "Activation of the network",
        DEEP,
        Sweep("model.activation", ("relu", "tanh", "sigmoid"), ("relu", "tanh", "sigmoid"), 0),
    ),
    _figure(
        8,
        "Dropout of the network",
        ("FLSEST",),
        Sweep(
            "model.dropout",
            (0.1, 0.3, 0.5, 0.7, 0.9),
            ("0.1", "0.3", "0.5", "0.7", "0.9"),
            2,
        ),
    ),
    _figure(
        9,
        "Learning rate",
        ("FLSEST",),
        Sweep(
            "train.lr",
            (1.0e-6, 1.0e-5, 1.0e-4, 1.0e-3, 1.0e-2),
            ("1e-6", "1e-5", "1e-4", "1e-3", "1e-2"),
            1,
        ),
    ),
)
