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
from ...stages import StageDefinition, TensorDefinition
from .published import PublishedSED


class Monolithic(nn.Module):
    """An image and a vocabulary to labels; every category goes through every stage."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.model = model
        self.network = PublishedSED(model)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """uint8 (1, H, W, 3) and unit vectors (T, P, C) to labels, int32 (H, W)."""
        network = self.network
        embed, *guidance = network.image(to_pixels(image, network.preset.image_size))
        logits, _, _ = network.decode(embed, guidance, text, k=None)
        size = (image.shape[1], image.shape[2])
        maps = F.interpolate(logits.sigmoid()[None], size=size, mode="bilinear", align_corners=False)
        return maps[0].argmax(0).to(torch.int32)


def export_monolithic(model: SED, size: int, path: Path) -> None:
    """Write the graph for square images of `size` pixels and any number of categories."""
    stage = StageDefinition(
        "monolithic",
        "an image and a vocabulary",
        "labels",
        (
            TensorDefinition("image", "uint8", (1, size, size, 3)),
            TensorDefinition("text", "float32", ("T", "P", "C")),
        ),
        (TensorDefinition("labels", "int32", (size, size)),),
    )
    inputs = {
        "image": torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8),
        "text": F.normalize(torch.randn(5, len(model.templates), model.preset.embed_dim), dim=-1),
    }
    write_graph(GraphSpec(stage, Monolithic(model), inputs), path, OPSETS["fp32"], {})
