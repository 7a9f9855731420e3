"""The model zoo: one paper, one file; this table is the only list of them."""

from torch import nn

from pipeline.models.deepfm import DeepFM
from pipeline.models.fiinet import FiiNet
from pipeline.models.flsest import FLSEST
from pipeline.models.fm import FM
from pipeline.models.lr import LR

MODELS: dict[str, type[nn.Module]] = {
    "lr": LR,
    "fm": FM,
    "deepfm": DeepFM,
    "fiinet": FiiNet,
    "flsest": FLSEST,
}
