"""Reading checkpoints, published or our own, and writing our own."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError
from ..files import is_file, replacing
from .presets import PRESETS, Preset, preset_named
from .sed import SED

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


@contextmanager
def reading(path: Path, fix: str, what: str = "") -> Iterator[None]:
    """Turn a reader's error on the file at `path` into one that names it.

    Args:
        path: of the file.
        fix: what to do about it.
        what: what it cannot be read as, such as " as a checkpoint".

    Raises:
        InputError: the block raised an exception.
    """
    try:
        yield
    except Exception as error:
        # Damaged bytes reach the pickle and zip readers, which check little and raise almost anything.
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: cannot be read{what} ({reason}); {fix}") from error


STEM = "clip.visual.trunk.stem.0.weight"
NAMED = 4


def load(path: str | Path, preset: str | None = None) -> SED:
    """Build the network of a checkpoint, in evaluation mode.

    Args:
        path: a published detectron2 `.pth` (weights under "model") or a `.safetensors` of this package.
        preset: name of its preset; None means read from the file.

    Raises:
        InputError: the file is missing, broken, or its keys and shapes do not fit the preset.
    """
    path = Path(path)
    if not is_file(path):
        raise InputError(f"{path}: no such file; give a SED checkpoint (.pth or .safetensors)")
    key_of: Callable[[str], str] = published_name
    if path.suffix == ".safetensors":
        found, named = read_safetensors(path)
        if not preset and named not in PRESETS:
            raise InputError(
                f"{path}: names the preset {named!r}, which is not known; "
                f"choose one of {', '.join(PRESETS)} with --preset"
            )
        chosen = preset_named(preset or named)
        key_of = str
    else:
        found = read_published(path)
        chosen = preset_named(preset) if preset else recognise(path, found)
    model = SED(chosen)
    ours = model.state_dict()
    wanted = {key_of(name): name for name in ours}
    check_fit(path, chosen, {key: ours[name] for key, name in wanted.items()}, found)
    model.load_state_dict({name: found[key].to(ours[name].dtype) for key, name in wanted.items()})
    return model.eval()


def read_published(path: Path) -> dict[str, Tensor]:
    """The tensors under "model" of a detectron2 `.pth`.

    Raises:
        InputError: not such a file, or cut short.
    """
    fix = "it may be cut short, copy it again"
    with reading(path, fix, " as a PyTorch checkpoint"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = torch.load(path, map_location="cpu", weights_only=True)
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise InputError(
            f'{path}: has no weights under "model"; expected a published detectron2 SED checkpoint'
        )
    return tensors


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of our own format and the preset's name.

    Raises:
        InputError: not such a file, or cut short.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as safetensors ({error}); it may be cut short, copy it again"
        ) from error
    if "preset" not in metadata:
        raise InputError(f"{path}: names no preset in its metadata; expected a file written by sed-trt train")
    return tensors, metadata["preset"]


def recognise(path: Path, tensors: Mapping[str, Tensor]) -> Preset:
    """The preset whose first convolution the checkpoint's fits.

    Raises:
        InputError: none does.
    """
    key = published_name(STEM)
    if key not in tensors or tensors[key].ndim != 4:
        raise InputError(
            f"{path}: has no convolution {key} among its {len(tensors)} keys; "
            "expected a published SED checkpoint"
        )
    width = tensors[key].shape[0]
    for preset in PRESETS.values():
        if preset.trunk_widths[0] == width:
            return preset
    known = ", ".join(f"{preset.name} ({preset.trunk_widths[0]})" for preset in PRESETS.values())
    raise InputError(
        f"{path}: its trunk starts with {width} channels, which no preset has; known are {known}"
    )


def check_fit(path: Path, preset: Preset, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare keys and shapes.

    Raises:
        InputError: any is missing, surplus or misshapen; the message counts them and names the first few.
    """
    missing = [key for key in wanted if key not in found]
    surplus = [key for key in found if key not in wanted]
    misshapen = [
        f"{key} {tuple(found[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in found and found[key].shape != tensor.shape
    ]
    problems = [
        f"{len(keys)} {kind} ({', '.join(keys[:NAMED])}{', …' if len(keys) > NAMED else ''})"
        for kind, keys in (("missing", missing), ("surplus", surplus), ("misshapen", misshapen))
        if keys
    ]
    if problems:
        raise InputError(
            f"{path}: does not fit preset {preset.name}: {'; '.join(problems)}; "
            "give the checkpoint of this preset or name another with --preset"
        )


def save(model: SED, path: str | Path, half: bool = False) -> None:
    """Write our own format: safetensors with the preset in its metadata, complete or not at all.

    Args:
        model: what to save.
        path: where; its folder must exist.
        half: store floating-point weights in 16 bits; they are 32 again once loaded.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path)
    tensors = {
        name: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "sed-trt", "preset": model.preset.name})
        except SafetensorError as error:
            raise InputError(
                f"{path}: cannot be written ({error}); make room, or choose another folder"
            ) from error
