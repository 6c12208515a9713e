"""The sizes of each SED network; everything else, every resolution included, follows from them."""

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Preset:
    """Sizes of one SED network.

    Attributes:
        name: of the preset, as users give it.
        clip: the open_clip model that it is built on.
        image_size: side S of the network's square input in pixels; a multiple of 32.
        embed_dim: width C of the CLIP embedding shared by image and text.
        trunk_widths: channels of res2, res3, res4 and res5 (strides 4, 8, 16, 32).
        decoder_widths: decoder channels before stage 1 and after stages 1, 2 and 3.
        guidance_widths: channels of the image guidance, and again of the cost guidance, at stages 1, 2 and 3.
        attention_pool: side of the average pooling before class attention while training; 1 is none.
        templates: prompt templates with one `{}`; None means the 80 of CLIP's ImageNet evaluation.
    """

    name: str
    clip: str
    image_size: int
    embed_dim: int
    trunk_widths: tuple[int, int, int, int]
    decoder_widths: tuple[int, int, int, int] = (128, 64, 32, 16)
    guidance_widths: tuple[int, int, int] = (32, 16, 8)
    attention_pool: int = 2
    templates: tuple[str, ...] | None = None

    @property
    def grid(self) -> int:
        """Side h of the cost map: one position per 32 pixels."""
        return self.image_size // 32


SED_B = Preset(
    name="sed-b",
    clip="convnext_base_w_320",
    image_size=768,
    embed_dim=640,
    trunk_widths=(128, 256, 512, 1024),
)
SED_L = Preset(
    name="sed-l",
    clip="convnext_large_d_320",
    image_size=768,
    embed_dim=768,
    trunk_widths=(192, 384, 768, 1536),
)
SED_TINY = Preset(
    name="sed-tiny",
    clip="sed_tiny_clip",
    image_size=256,
    embed_dim=128,
    trunk_widths=(32, 64, 128, 256),
    decoder_widths=(64, 32, 16, 8),
    guidance_widths=(16, 8, 4),
    # Its 8x8 cost map leaves nothing to pool.
    attention_pool=1,
    templates=(
        "a photo of a {}.",
        "a photo of the {}.",
        "a picture of a {}.",
        "a drawing of a {}.",
        "there is a {} in the scene.",
        "a {} in the picture.",
        "the {}.",
        "{}",
    ),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in (SED_B, SED_L, SED_TINY)}


def preset_named(name: str) -> Preset:
    """The preset called `name`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is not known; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
