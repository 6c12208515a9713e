"""Checkpoints: published detectron2 files and our own safetensors, read, matched to a preset, and written."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from ..files import is_file, replacing
from .presets import PRESETS, Preset, preset_named
from .sed import SED

# (ours, published).
PREFIXES = (
    ("clip.", "sem_seg_head.predictor.clip_model."),
    ("decoder.", "sem_seg_head.predictor.transformer."),
)
# (ours, published), of the decoder's ConvNeXt block: ours is timm's, whose parameters have other names.
BLOCK_NAMES = (
    (".cnext.conv_dw.", ".cnext.dwconv."),
    (".cnext.mlp.fc1.", ".cnext.pwconv1."),
    (".cnext.mlp.fc2.", ".cnext.pwconv2."),
)
# The convolution whose width tells the preset of a published checkpoint.
STEM = "clip.visual.trunk.stem.0.weight"
SHOWN_KEYS = 4


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
    key_of: Callable[[str], str]
    if path.suffix == ".safetensors":
        key_of = str
        tensors, recorded_preset = read_safetensors(path)
        if not preset and recorded_preset not in PRESETS:
            raise InputError(
                f"{path}: names the preset {recorded_preset!r}, which is not known; "
                f"choose one of {', '.join(PRESETS)} with --preset"
            )
        chosen = preset_named(preset or recorded_preset)
    else:
        key_of = published_name
        tensors = read_published(path)
        chosen = preset_named(preset) if preset else recognise_preset(path, tensors)
    with NoRandomWeights():
        model = SED(chosen)
    ours = model.state_dict()
    check_fit(path, chosen, {key_of(name): tensor for name, tensor in ours.items()}, tensors)
    model.load_state_dict({name: tensors[key_of(name)].to(tensor.dtype) for name, tensor in ours.items()})
    return model.eval()


class NoRandomWeights(TorchFunctionMode):
    """Inside its block tensors stay unset where they would be filled with random numbers.

    Drawing weights takes most of the time of building a network, and loading replaces them all.
    """

    FILLS = (
        Tensor.uniform_,
        Tensor.normal_,
        Tensor.erfinv_,
        init.uniform_,
        init.normal_,
        init.kaiming_uniform_,
    )

    def __torch_function__(
        self, function: Callable[..., Any], _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Return the tensor where `function` would fill it, else run `function`."""
        kwargs = kwargs or {}
        if function in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def save(model: SED, path: str | Path, half: bool = False) -> None:
    """Write our own format: safetensors with the preset in its metadata, complete or not at all.

    Args:
        model: the network to save.
        path: the file; its folder must exist.
        half: store floating-point weights in 16 bits; `load` makes them 32 again.

    Raises:
        InputError: the file cannot be written.
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


def published_name(name: str) -> str:
    """The key that our parameter `name` has in a published checkpoint."""
    for ours, published in PREFIXES:
        if name.startswith(ours):
            name = published + name.removeprefix(ours)
    for ours, published in BLOCK_NAMES:
        name = name.replace(ours, published)
    return name


@contextmanager
def input_error_if_unreadable(path: Path, fix: str, kind: str = "") -> Iterator[None]:
    """Turn any exception of the block, which reads the file at `path`, into an `InputError` that names it.

    Args:
        path: of the file.
        fix: what the user can do.
        kind: what the file should be, such as " as a checkpoint".

    Raises:
        InputError: the block raised an exception.
    """
    try:
        yield
    except Exception as error:
        # Damaged bytes reach the pickle and zip readers, which check little and raise almost anything.
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: cannot be read{kind} ({reason}); {fix}") from error


def read_published(path: Path) -> dict[str, Tensor]:
    """The tensors under "model" of a detectron2 `.pth`.

    Raises:
        InputError: the file is not such a checkpoint, or is cut short.
    """
    fix = "it may be cut short, copy it again"
    with input_error_if_unreadable(path, fix, " as a PyTorch checkpoint"), warnings.catch_warnings():
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
        InputError: the file is not such a checkpoint, or is cut short.
    """
    with (
        input_error_if_unreadable(path, "it may be cut short, copy it again", " as safetensors"),
        safe_open(path, framework="pt") as file,
    ):
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if "preset" not in metadata:
        raise InputError(f"{path}: names no preset in its metadata; expected a file written by sed-trt train")
    return tensors, metadata["preset"]


def recognise_preset(path: Path, tensors: Mapping[str, Tensor]) -> Preset:
    """The preset whose first convolution is as wide as a published checkpoint's.

    Raises:
        InputError: there is none.
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


def check_fit(
    path: Path, preset: Preset, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Compare the keys and shapes of a checkpoint's tensors with those that a preset expects.

    Raises:
        InputError: any is missing, surplus or misshapen; the message counts them and names the first few.
    """
    missing = [key for key in expected if key not in tensors]
    surplus = [key for key in tensors if key not in expected]
    misshapen = [
        f"{key} {tuple(tensors[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in tensors and tensors[key].shape != tensor.shape
    ]
    problems = [
        f"{len(keys)} {kind} ({', '.join(keys[:SHOWN_KEYS])}{', …' if len(keys) > SHOWN_KEYS else ''})"
        for kind, keys in (("missing", missing), ("surplus", surplus), ("misshapen", misshapen))
        if keys
    ]
    if problems:
        raise InputError(
            f"{path}: does not fit preset {preset.name}: {'; '.join(problems)}; "
            "give the checkpoint of this preset or name another with --preset"
        )
