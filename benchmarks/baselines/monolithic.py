"""The whole network as one ONNX graph without rejection: what a plain export of SED gives."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...export.onnx_graph import write_graph
from ...export.precision import OPSETS
from ...export.stages import GraphSpec
from ...model import SED
from ...model.labels import to_pixels
from .published import PublishedSED


class Monolithic(nn.Module):
    """A picture and a vocabulary to labels; every category goes through every stage."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.model = model
        self.network = PublishedSED(model)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """uint8 (1, H, W, 3) and unit vectors (T, P, C) to labels, int32 (H, W)."""
        network = self.network
        embed, *images = network.image(to_pixels(image, network.preset.image_size))
        cost, x, logits = network.scout(embed, text)
        for index, (guide, guidance) in enumerate(zip(images, network.cost_guidance(cost), strict=True)):
            x, logits = network.stage(index, x, guide, guidance)
        size = (image.shape[1], image.shape[2])
        maps = F.interpolate(logits.sigmoid()[None], size=size, mode="bilinear", align_corners=False)
        return maps[0].argmax(0).to(torch.int32)


def export_monolithic(model: SED, size: int, path: Path) -> None:
    """Write the graph for square pictures of `size` pixels and any number of categories."""
    text = F.normalize(torch.randn(5, len(model.templates), model.preset.embed_dim), dim=-1)
    spec = GraphSpec(
        "monolithic",
        Monolithic(model),
        {"image": torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8), "text": text},
        {"image": {}, "text": {0: "T"}},
        {"labels": {}},
    )
    write_graph(spec, path, OPSETS["fp32"], {})
