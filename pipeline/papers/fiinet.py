"""FiiNet: Wang and Li, "A Click-Through Rate Prediction Method Based on Cross-Importance of Multi-Order
Features", 2024. Its Table IV and Figures 2 to 4.
"""  # noqa: D205

from pipeline.papers.exhibit import UNSAID, Block, Claim, Exhibit, Figures, Row, Sweep

PAPER = "FiiNet (Wang and Li, 2024)"
SOURCES = ("kuairec-big", "book-crossing")
# Table IV: AUC and logloss on KuaiRec-big, the same on Book-Crossing
TABLE_4 = {
    "LR": ("lr", 0.7347, 0.1400, 0.6323, 0.6605),
    "FM": ("fm", 0.7759, 0.1353, 0.6484, 0.6771),
    "AFM": ("afm", 0.7542, 0.1386, 0.6392, 0.6622),
    "FFM": ("ffm", 0.7709, 0.1356, 0.6506, 0.6613),
    "Wide&Deep": ("wide_deep", 0.7867, 0.1332, 0.6720, 0.6387),
    "DeepFM": ("deepfm", 0.7886, 0.1326, 0.6603, 0.6652),
    "NFM": ("nfm", 0.7789, 0.1354, 0.6533, 0.6514),
    "DCN": ("dcn", 0.7862, 0.1334, 0.6707, 0.6410),
    "xDeepFM": ("xdeepfm", 0.7862, 0.1333, 0.6619, 0.6646),
    "FiBiNET": ("fibinet", 0.7877, 0.1332, 0.6698, 0.6403),
    "AutoInt": ("autoint", 0.7891, 0.1337, 0.6534, 0.6804),
    "FiiNet": ("fiinet", 0.7983, 0.1310, 0.6745, 0.6369),
}
LABELS = (
    "The published loglosses on Book-Crossing (0.637 to 0.680) are above that of a constant under the "
    "paper's own label rule (rating > 6): 0.597 if unrated books are negatives, 0.560 if they are left out. "
    "So the rule cannot be quite that one, and only orders of models can be compared there."
)
ROWS = (
    "KuaiRec-big: fields are those of pipeline/datasets/kuairec_big.py; the paper names only some of its own."
)
READING = (
    "FiiNet has its default reading here (`fusion: field`), and in Figure 3 another one (`separate`), whose "
    "AUC is another, too."
)
PARTS = (
    "-H is without the crosses of higher order, -S without the pairs, -SH without the attention. All four "
    "are the reading `separate`, in which a part can be taken out and nothing else changes; Table IV has the "
    "default one, and so another AUC."
)


def settings(source: str) -> Block:
    """Return what Table III says; 0.0025 is Xavier's standard deviation for 300,000 ids."""
    del source  # the same on both
    return {
        "model": {
            "embedding_size": 32,
            "hidden": [400, 400],
            "dropout": 0.2,
            "embedding_dropout": 0.0,
            "embedding_std": 0.0025,
        },
        "train": {
            "epochs": 500,
            "batch_size": 256,
            "min_steps_per_epoch": 0,
            "lr": 0.001356,
            "embedding_l2": 1.0e-5,
            "linear_l2": 1.0e-5,
            "network_l2": 1.0e-5,
            "network_decay": 0.0,
            "l2_rows": 0,
            "average_epochs": 0.0,
            **UNSAID,
        },
    }


def _rows() -> tuple[Row, ...]:
    return tuple(
        Row(label, model, dict(zip(SOURCES, (Figures(*f[:2]), Figures(*f[2:])), strict=True)))
        for label, (model, *f) in TABLE_4.items()
    )


EXHIBITS = (
    Exhibit(
        name="fiinet-table-4",
        title="FiiNet beside eleven models",
        paper=f"{PAPER}, Table IV",
        sources=SOURCES,
        rows=_rows(),
        settings=settings,
        claims=tuple(Claim("FiiNet", label) for label in TABLE_4 if label != "FiiNet"),
        notes=(READING, LABELS, ROWS),
    ),
    Exhibit(
        name="fiinet-figure-2",
        title="FiiNet by embedding size",
        paper=f"{PAPER}, Figure 2",
        sources=SOURCES,
        rows=(Row("FiiNet", "fiinet"),),
        settings=settings,
        sweep=Sweep(
            "model.embedding_size",
            (6, 12, 18, 24, 30, 36, 42, 48),
            ("6", "12", "18", "24", "30", "36", "42", "48"),
            best=4,
            rows="validation",
            axis="embedding size",
        ),
        notes=("The paper shows validation AUC; so do we.", LABELS),
    ),
    Exhibit(
        name="fiinet-figure-3",
        title="FiiNet without one of its parts",
        paper=f"{PAPER}, Figure 3",
        sources=SOURCES,
        rows=(
            Row("FiiNet", "fiinet-separate"),
            Row("FiiNet-H", "fiinet-h"),
            Row("FiiNet-S", "fiinet-s"),
            Row("FiiNet-SH", "fiinet-sh"),
        ),
        settings=settings,
        claims=(
            *(Claim("FiiNet", label) for label in ("FiiNet-H", "FiiNet-S", "FiiNet-SH")),
            Claim("FiiNet-H", "FiiNet-S"),
            Claim("FiiNet-H", "FiiNet-SH"),
            Claim("FiiNet-S", "FiiNet-SH"),
        ),
        notes=(
            PARTS,
            "The paper's figure is a picture without numbers that could be compared.",
            LABELS,
        ),
    ),
    Exhibit(
        name="fiinet-figure-4",
        title="FiiNet's attention before and after training",
        paper=f"{PAPER}, Figure 4",
        sources=("book-crossing",),
        rows=(Row("FiiNet", "fiinet"),),
        settings=settings,
        attention=True,
        notes=("The weights of a field's pairs and triples add up to 1: where one rises, the other falls.",),
    ),
)
