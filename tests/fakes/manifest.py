"""The manifest of a bundle whose stages are those of `fake_engines`."""

from sed_trt.bundle import Manifest, Stage, TensorSpec
from sed_trt.tests.fakes.engines import SIDE


def _tensors(*descriptions: tuple[str, str, tuple[int | str, ...]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(*description) for description in descriptions)


def _guidance(number: int, axis: int | str = 1) -> tuple[str, str, tuple[int | str, ...]]:
    return f"guidance{number}", "float32", (axis, 1, 2 * 2**number, 2 * 2**number)


_EMBED: tuple[str, str, tuple[int | str, ...]] = ("embed", "float32", (1, 3, 2, 2))
_TEXT: tuple[str, str, tuple[int | str, ...]] = ("text", "float32", ("T", 1, 3))


def _maps(number: int, axis: str, *names: str) -> tuple[tuple[str, str, tuple[int | str, ...]], ...]:
    return tuple((f"{name}{number}", "float32", (axis, 2 * 2**number, 2 * 2**number)) for name in names)


def fake_manifest() -> Manifest:
    """The manifest of a bundle whose stages are `STAGES`."""
    return _MANIFEST


_MANIFEST = Manifest(
    sed_trt="0",
    preset="fake",
    precision="fp32",
    image_size=SIDE,
    embed_dim=3,
    context_length=5,
    templates=("{}",),
    vote_ranks=8,
    stages={
        "text": Stage(
            "text.onnx", _tensors(("tokens", "int64", ("N", 5))), _tensors(("embedding", "float32", ("N", 3)))
        ),
        "pixels": Stage(
            "pixels.onnx",
            _tensors(("image", "uint8", (1, "H", "W", 3))),
            _tensors(("pixels", "float32", (1, 3, SIDE, SIDE))),
        ),
        "image": Stage(
            "image.onnx",
            _tensors(("pixels", "float32", ("B", 3, SIDE, SIDE))),
            _tensors(("embed", "float32", ("B", 3, 2, 2)), *(_guidance(number, "B") for number in (1, 2, 3))),
        ),
        "scout": Stage(
            "scout.onnx",
            _tensors(_EMBED, _TEXT),
            _tensors(("logits0", "float32", ("T", 2, 2)), ("votes0", "int32", (8, "T"))),
        ),
        "decode1": Stage(
            "decode1.onnx",
            _tensors(_EMBED, _TEXT, ("kept0", "int64", ("K1",)), _guidance(1)),
            _tensors(*_maps(1, "K1", "x", "cost", "logits"), ("votes1", "int32", (8, "K1"))),
        ),
        "decode2": Stage(
            "decode2.onnx",
            _tensors(*_maps(1, "K1", "x", "cost"), ("kept1", "int64", ("K2",)), _guidance(2)),
            _tensors(*_maps(2, "K2", "x", "cost", "logits"), ("votes2", "int32", (8, "K2"))),
        ),
        "decode3": Stage(
            "decode3.onnx",
            _tensors(*_maps(2, "K2", "x", "cost"), ("kept2", "int64", ("K3",)), _guidance(3)),
            _tensors(("logits", "float32", ("K3", 16, 16))),
        ),
        "label": Stage(
            "label.onnx",
            _tensors(
                ("logits", "float32", ("K3", 16, 16)),
                ("kept", "int64", ("K3",)),
                ("rows", "float32", ("R",)),
                ("columns", "float32", ("W",)),
            ),
            _tensors(("labels", "int32", ("R", "W")), ("scores", "float32", ("R", "W"))),
        ),
    },
    files={},
    checkpoint={},
    libraries={},
)
