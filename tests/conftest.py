"""What every test starts from: shapes checked as types, one thread, the same random numbers."""

import random

import jaxtyping

# Before anything imports these modules: from here on every call checks the shapes it declares.
jaxtyping.install_import_hook(
    ["pipeline.models", "pipeline.layers", "pipeline.data", "pipeline.training"], "shapes.checked"
)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("project", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("project")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  for libraries that read the global state
    torch.manual_seed(0)
