"""State that a model computes before the first gradient step and saves with its weights."""

from typing import Any

import torch
from torch import nn


class Prepared(nn.Module):
    """A module whose buffers are computed from the train rows in `prepare` and saved with the weights.

    Their sizes depend on the data: loading a state resizes them.
    """

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in list(self.named_buffers(recurse=False)):
            saved = state_dict.get(f"{prefix}{name}")
            if saved is not None:
                setattr(self, name, torch.empty_like(saved, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
