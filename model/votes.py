"""The vote table: which category ranks where, at how many pixels."""

import torch
from torch import Tensor

VOTE_RANKS = 8
# Below every logit, and still a finite number in half precision.
LOWEST = -60000.0


def vote_table(logits: Tensor, alive: Tensor | None = None) -> Tensor:
    """Count, for each of the first 8 ranks, the pixels at which each category holds it.

    The category axis is padded by 8 very low rows, so that fewer than 8 categories rank as well; a rank taken
    by a padding row counts for nobody. Indices are compared with 0..T-1, which unlike a comparison with the
    8th value gives every pixel exactly one holder per rank.

    Args:
        logits: (T, h, w).
        alive: (T,), False for categories whose logits are `LOWEST` everywhere and that get no vote even where
            fewer than 8 others are there; None means all are alive.

    Returns:
        int32 (8, T).
    """
    flat = logits.flatten(1)
    padding = flat.new_full((VOTE_RANKS, flat.shape[1]), LOWEST)
    holders = torch.cat([flat, padding]).topk(VOTE_RANKS, dim=0).indices
    categories = torch.arange(flat.shape[0], device=flat.device)
    votes = (holders.unsqueeze(-1) == categories).sum(1, dtype=torch.int32)
    return votes if alive is None else votes * alive.to(torch.int32)


def survivors(votes: Tensor, k: int) -> Tensor:
    """The published rejection: categories among the first `k` ranks at some pixel.

    Args:
        votes: (8, T) of `vote_table`.
        k: 1 to 8.

    Returns:
        int64 (K,), increasing.
    """
    return votes[:k].sum(0).nonzero().squeeze(1)
