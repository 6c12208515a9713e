"""Class attention: at each pixel the categories attend to one another, linearly in their number."""

import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 4


class LinearAttention(nn.Module):
    """Attention of kernel elu + 1 (Katharopoulos et al., 2020), without an output projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend along the category axis.

        out_t = T * phi(q_t) . (sum_s phi(k_s) v_s^T / T) / (phi(q_t) . sum_s phi(k_s) + 1e-6)

        Args:
            tokens: (B, pixels, T, width).

        Returns:
            (B, pixels, T, width).
        """
        categories = tokens.shape[2]
        query = F.elu(self._split(self.q(tokens))) + 1
        key = F.elu(self._split(self.k(tokens))) + 1
        value = self._split(self.v(tokens)) / categories
        summary = key.transpose(-1, -2) @ value
        norm = query @ key.sum(-2).unsqueeze(-1) + 1e-6
        out = (query @ summary) / norm * categories
        return out.transpose(2, 3).flatten(3)

    @staticmethod
    def _split(tokens: Tensor) -> Tensor:
        """(B, pixels, T, width) to (B, pixels, heads, T, width / heads)."""
        return tokens.unflatten(3, (HEADS, -1)).transpose(2, 3)


class ClassAttention(nn.Module):
    """A pre-norm transformer layer across categories whose result is added to its input once more."""

    def __init__(self, width: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.attention = LinearAttention(width)
        self.MLP = nn.Sequential(nn.Linear(width, width * 4), nn.ReLU(), nn.Linear(width * 4, width))
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, images: int) -> Tensor:
        """Mix the categories of each image.

        Args:
            x: (B*T, width, h, w).
            images: B.

        Returns:
            (B*T, width, h, w).
        """
        pooled = self.training and self.pool > 1
        z = F.avg_pool2d(x, self.pool) if pooled else x
        height, width = z.shape[-2:]
        tokens = z.unflatten(0, (images, -1)).flatten(3).permute(0, 3, 1, 2)
        tokens = tokens + self.attention(self.norm1(tokens))
        tokens = tokens + self.MLP(self.norm2(tokens))
        z = tokens.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, (height, width))
        if pooled:
            z = F.interpolate(z, size=x.shape[-2:], mode="bilinear", align_corners=True)
        return x + z
