"""The cost map: how alike every position and every category name are."""

import torch.nn.functional as F
from torch import Tensor, nn


class CostMap(nn.Module):
    """Cosine between every position and every prompt; it has no weights."""

    def forward(self, embed: Tensor, text: Tensor) -> Tensor:
        """Compare.

        Args:
            embed: image embeddings, (B, C, h, w), of any length.
            text: unit vectors, (T, P, C) for all images or (B, T, P, C) for each its own.

        Returns:
            (B*T, P, h, w); categories stand in the batch axis.
        """
        height, width = embed.shape[-2:]
        positions = F.normalize(embed, dim=1).flatten(2)
        cosines = text.flatten(-3, -2) @ positions
        return cosines.reshape(-1, text.shape[-2], height, width)
