"""The table's gradient, against the loop over ids."""

import pytest
import torch

from pipeline.layers.lookup import lookup
from pipeline.schema import EMPTY

ROWS = 30


@pytest.mark.parametrize("dim", [1, 5])
@pytest.mark.parametrize("batch", [1, 342])  # few ids, and more than the 1024 from which there is a kernel
@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("sparse", [False, True])
def test_rows_and_gradient_of_a_lookup(dim: int, batch: int, kind: torch.dtype, sparse: bool) -> None:
    torch.manual_seed(1)
    table = torch.randn(ROWS, dim, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(ROWS, (batch, 3), dtype=kind)
    ids[0, 1] = EMPTY
    grad = torch.randn(batch, 3, dim, dtype=torch.float64)
    rows = lookup(table, ids, sparse=sparse)
    rows.backward(grad)
    expected = torch.zeros(ROWS, dim, dtype=torch.float64)
    for b in range(batch):
        for s in range(3):
            row = int(ids[b, s])
            assert torch.equal(rows[b, s], table[row])
            if row != EMPTY:
                expected[row] += grad[b, s]
    assert table.grad is not None
    assert table.grad.is_sparse is sparse
    torch.testing.assert_close(table.grad.to_dense(), expected)
