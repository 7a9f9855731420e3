"""Preprocess and split on a Ray cluster: the bytes of one machine, also when a node is lost on the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_engine import prepared

from benchmarks import logs
from pipeline.common import engine
from pipeline.common.errors import PipelineError
from pipeline.preprocess import clean_table
from pipeline.preprocess.text import records

ray: Any = pytest.importorskip("ray", reason="the extra [scale] is not installed")
from ray.cluster_utils import Cluster  # noqa: E402

# Ray's own threads and sockets are its affair
pytestmark = [pytest.mark.slow, pytest.mark.kill, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(name="cluster")
def _cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one processor each on this machine, which find this checkout."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}:{Path(__file__).parent}")
    memory = 150 << 20
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": memory})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster, cluster.add_node(num_cpus=1, object_store_memory=memory)
    engine.use(None)
    ray.shutdown()
    cluster.shutdown()


def test_two_nodes_of_which_one_is_lost_write_the_bytes_of_one_machine(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.kuairec(tmp_path / "raw", 3000)
    monkeypatch.setitem(records.__kwdefaults__, "block_bytes", 30_000)
    monkeypatch.setattr(clean_table, "ROWS_PER_BLOCK", 700)
    engine.use(1)
    alone = prepared(tmp_path / "raw", tmp_path / "alone")
    engine.use(None, "ray")
    assert prepared(tmp_path / "raw", tmp_path / "both") == alone
    nodes, second = cluster
    loads = clean_table.CleanTable.load_extra

    def lost(self: clean_table.CleanTable, *names: str) -> Any:
        nodes.remove_node(second, allow_graceful=False)
        return loads(self, *names)

    monkeypatch.setattr(clean_table.CleanTable, "load_extra", lost)
    assert prepared(tmp_path / "raw", tmp_path / "one left") == alone


def test_a_unit_whose_machine_is_lost_is_done_again(cluster: Any) -> None:
    nodes, second = cluster
    engine.use(None, "ray")

    def unit(number: int) -> int:
        import time

        time.sleep(0.3)
        return number * number

    results = engine.map_ordered(unit, range(12))
    found = [next(results)]
    nodes.remove_node(second, allow_graceful=False)
    assert found + list(results) == [number * number for number in range(12)]


def test_an_error_of_a_unit_is_the_error_of_the_map(cluster: Any) -> None:
    engine.use(None, "ray")

    def fails(number: int) -> int:
        if number >= 3:
            raise PipelineError(f"unit {number}")
        return number

    results = engine.map_ordered(fails, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(PipelineError, match=r"^unit 3$"):
        next(results)
