"""What a model learns before the first step of gradient descent, kept as part of its state."""

from typing import Any

import torch
from torch import nn


class Prepared(nn.Module):
    """A module whose buffers are filled in `prepare`, from the train rows, and saved with the weights.

    How large they are comes with the data: a fresh module takes the sizes of what it loads.
    """

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in list(self.named_buffers(recurse=False)):
            saved = state_dict.get(f"{prefix}{name}")
            if saved is not None:
                setattr(self, name, torch.empty_like(saved, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
