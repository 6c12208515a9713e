"""How published checkpoints name what this package's modules hold."""

# (ours, published); the decoder's ConvNeXt block is timm's, whose names differ from the published ones.
PREFIXES = (
    ("clip.", "sem_seg_head.predictor.clip_model."),
    ("decoder.", "sem_seg_head.predictor.transformer."),
)
BLOCK = (
    (".cnext.conv_dw.", ".cnext.dwconv."),
    (".cnext.mlp.fc1.", ".cnext.pwconv1."),
    (".cnext.mlp.fc2.", ".cnext.pwconv2."),
)


def published_name(name: str) -> str:
    """The published key of our parameter `name`."""
    for ours, published in PREFIXES:
        if name.startswith(ours):
            name = published + name.removeprefix(ours)
    for ours, published in BLOCK:
        name = name.replace(ours, published)
    return name
