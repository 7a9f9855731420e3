"""Tables sharded by TorchRec over processes: the curve of one process, smaller parts, one package."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from rows import SCHEMAS, random_split

from benchmarks import sharded as benchmark
from pipeline.common.errors import PipelineError
from pipeline.models import build
from pipeline.train import adam, sharded

OPTIONS = Namespace(ids=2000, rows=8000, sharding="row_wise", table_lr=0.02)
TOLERANCE = 1e-5  # of every value of a learning curve: sums are rounded in another order


def test_without_torchrec_the_message_says_where_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchrec", None)
    schema = SCHEMAS["no-bags"]
    with pytest.raises(PipelineError, match=r"sharded tables need TorchRec .*docs/scale.md"):
        sharded.shard(build("deepfm", schema, {}, seed=1), schema, "row_wise", lr=0.1)


def test_a_table_elsewhere_is_looked_up_by_what_stands_in_its_place() -> None:
    """The one door: the model is the same whatever answers there, and Adam leaves it alone."""
    schema = SCHEMAS["three-domains"]
    model, ids = build("deepfm", schema, {}, seed=1).eval(), random_split(schema, 50).ids
    whole = model(ids)
    for layer in adam.tables(model):
        table = layer.table.detach()

        class Elsewhere(torch.nn.Module):
            def __init__(self, table: torch.Tensor) -> None:
                super().__init__()
                self.shape, self.rows = table.shape, torch.nn.Parameter(table, requires_grad=False)

            def forward(self, ids: torch.Tensor) -> torch.Tensor:
                return self.rows[ids.long()]

        del layer.table
        layer.table = Elsewhere(table)
    assert torch.equal(model(ids), whole)
    groups = adam.parameter_groups(model, 1e-3, 1e-3, 0.0)
    assert not any(group.rows for group in groups)
    trained = {id(p) for group in groups for p in group.params}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["row_wise", "table_wise"])
def test_processes_with_sharded_tables_train_what_one_trains(
    sharding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchrec", reason="TorchRec is not installed: docs/scale.md says how")
    monkeypatch.chdir(Path(__file__).parents[1])
    options = Namespace(**{**vars(OPTIONS), "sharding": sharding})
    alone, both = (benchmark.measured(options, count) for count in (1, 2))
    assert benchmark.difference(both, alone) < TOLERANCE
    assert both["curve"][-1]["valid_auc"] > both["curve"][0]["valid_auc"] > 0.6
    held = [size for size, *_ in both["each"]]
    (whole, *_), *_ = alone["each"]
    assert sum(held) == whole
    if sharding == "row_wise":
        assert max(held) < 0.51 * whole
    # what rank 0 gathered, read into the plain model by one process
    assert both["alone"]["auc"] == pytest.approx(both["valid"]["auc"], abs=1e-6)
    assert both["alone"]["logloss"] == pytest.approx(both["valid"]["logloss"], abs=1e-6)
    assert both["packaged"] < 1e-6, "a package written from them scores raw rows"
