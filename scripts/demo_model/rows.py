"""A packed row as the tensors that the model is fed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .tree import Tree


@dataclass(frozen=True, slots=True)
class Row:
    """What the model is fed, and the loss's places and labels."""

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    wanted: Tensor
    labels: Tensor


def to_row(tree: Tree) -> Row:
    index = np.arange(len(tree.tokens))
    end = np.asarray(tree.end)
    seen = (index[None, :] <= index[:, None]) & (index[:, None] < end[None, :])
    answers = np.flatnonzero(tree.target)
    return Row(
        tokens=torch.tensor(tree.tokens),
        positions=torch.tensor(tree.depth, dtype=torch.float32),
        mask=torch.from_numpy(np.where(seen, 0.0, -np.inf).astype(np.float32)),
        wanted=torch.from_numpy(np.asarray(tree.parent)[answers]),
        labels=torch.from_numpy(np.asarray(tree.tokens)[answers]),
    )
