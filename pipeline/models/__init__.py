"""The model zoo: one paper, one file; this table is the only list of them."""

from torch import nn

from pipeline.models.afm import AFM
from pipeline.models.afn import AFN
from pipeline.models.autoint import AutoInt
from pipeline.models.dcn import DCN
from pipeline.models.dcnv2 import DCNv2
from pipeline.models.deepfm import DeepFM
from pipeline.models.din import DIN
from pipeline.models.disenctr import DisenCTR
from pipeline.models.dnn import DNN
from pipeline.models.edcn import EDCN
from pipeline.models.eulernet import EulerNet
from pipeline.models.fcn import FCN
from pipeline.models.ffm import FFM
from pipeline.models.fibinet import FiBiNET
from pipeline.models.fiinet import FiiNet
from pipeline.models.finalmlp import FinalMLP
from pipeline.models.finalnet import FinalNet
from pipeline.models.flen import FLEN
from pipeline.models.flsest import FLSEST
from pipeline.models.fm import FM
from pipeline.models.fmfm import FmFM
from pipeline.models.fnn import FNN
from pipeline.models.fwfm import FwFM
from pipeline.models.gbdt_lr import GBDTLR
from pipeline.models.gdcn import GDCN
from pipeline.models.lr import LR
from pipeline.models.masknet import MaskNet
from pipeline.models.mf import MF
from pipeline.models.nfm import NFM
from pipeline.models.onn import ONN
from pipeline.models.pnn import PNN
from pipeline.models.qnn import QNN
from pipeline.models.wide_deep import WideDeep
from pipeline.models.wukong import Wukong
from pipeline.models.xdeepfm import XDeepFM

MODELS: dict[str, type[nn.Module]] = {
    "lr": LR,
    "fm": FM,
    "deepfm": DeepFM,
    "fiinet": FiiNet,
    "flsest": FLSEST,
    "nfm": NFM,
    "dnn": DNN,
    "autoint": AutoInt,
    "fibinet": FiBiNET,
    "flen": FLEN,
    "finalmlp": FinalMLP,
    "finalnet": FinalNet,
    "wide_deep": WideDeep,
    "pnn": PNN,
    "din": DIN,
    "disenctr": DisenCTR,
    "dcn": DCN,
    "dcnv2": DCNv2,
    "xdeepfm": XDeepFM,
    "edcn": EDCN,
    "gdcn": GDCN,
    "fcn": FCN,
    "masknet": MaskNet,
    "fnn": FNN,
    "fwfm": FwFM,
    "ffm": FFM,
    "afm": AFM,
    "fmfm": FmFM,
    "mf": MF,
    "onn": ONN,
    "qnn": QNN,
    "eulernet": EulerNet,
    "afn": AFN,
    "wukong": Wukong,
    "gbdt_lr": GBDTLR,
}
