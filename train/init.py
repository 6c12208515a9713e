"""The network that a training starts from: random, with pretrained CLIP weights, or a SED checkpoint."""

import urllib.error
import urllib.request
import warnings
from pathlib import Path

import huggingface_hub
import open_clip
import torch
from huggingface_hub import constants
from open_clip.factory import load_state_dict
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import InputError
from ..files import is_file
from ..model import SED, preset_named
from ..model.checkpoint import PREFIXES, check_fit, input_error_if_unreadable
from ..model.presets import Preset
from .config import RANDOM

# The names of open_clip's pretrained weights in their repositories.
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
HUB_TIMEOUT_S = 5.0


def initial_model(preset_name: str, init: str) -> SED:
    """The network that a training starts from.

    Args:
        preset_name: name of its preset.
        init: "random", a tag of open_clip's pretrained weights for the preset, or a file: a SED checkpoint,
            ours or published, or an open_clip checkpoint, with which the decoder starts from random weights.

    Raises:
        InputError: the tag is unknown or its weights are neither here nor within reach; the file is missing,
            damaged, or of another preset.
    """
    preset = preset_named(preset_name)
    if init == RANDOM:
        model = SED(preset)
        if preset.name == "sed-tiny":
            initialise(model)
        return model
    path = Path(init)
    if not is_file(path):
        path = pretrained_file(preset, init)
    kind, named = checkpoint_kind(path)
    if kind == "clip":
        return with_clip(preset, path)
    if named is not None and named != preset.name:
        raise InputError(f"{path}: is a checkpoint of {named}, not of {preset.name}; add --preset {named}")
    return SED.from_checkpoint(path, preset.name)


def initialise(model: SED) -> None:
    """Draw the weights whose usual initial values suit large networks and hold back a tiny one.

    The image trunk's have variance 1 / fan-in (LeCun et al., 1998): timm's fixed deviation of 0.02 suits
    widths of hundreds, and in sed-tiny's makes every block start as next to nothing. Word embeddings start
    ten times as large as open_clip's, without which the text tower takes all things of a colour for the same.
    """
    for module in model.clip.visual.trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    nn.init.normal_(model.clip.token_embedding.weight, std=0.2)


def check_trained(init: str) -> None:
    """Refuse to train the aux heads alone on a decoder that nothing has trained.

    Args:
        init: as `initial_model` takes it.

    Raises:
        InputError: it is no SED checkpoint.
    """
    path = Path(init)
    if not is_file(path) or checkpoint_kind(path)[0] != "sed":
        raise InputError(
            f"train heads: needs a trained SED, init is {init}; give a SED checkpoint with --init"
        )


def checkpoint_kind(path: Path) -> tuple[str, str | None]:
    """Whether a file is a "sed" or "clip" checkpoint, and the preset it names, if any.

    Raises:
        InputError: it cannot be read, or holds no weights by name.
    """
    with input_error_if_unreadable(path, "copy it again", " as a checkpoint"):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                preset = (file.metadata() or {}).get("preset")
            return ("clip", None) if preset is None else ("sed", preset)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="meta", weights_only=True)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds no weights by name; give an open_clip or SED checkpoint")
    tensors = content.get("model")
    published = isinstance(tensors, dict) and any(str(key).startswith(PREFIXES[0][1]) for key in tensors)
    return ("sed" if published else "clip"), None


def with_clip(preset: Preset, path: Path) -> SED:
    """SED with the CLIP of an open_clip checkpoint and a random decoder.

    Raises:
        InputError: the file's keys and shapes do not fit the preset.
    """
    model = SED(preset)
    ours = model.clip.state_dict()
    weights = {
        name: value
        for name, value in load_state_dict(str(path)).items()
        # Some versions of open_clip kept the text encoder's mask, which is no weight.
        if isinstance(value, Tensor) and (name != "attn_mask" or name in ours)
    }
    check_fit(path, preset, ours, weights)
    model.clip.load_state_dict({name: weights[name].to(ours[name].dtype) for name in ours})
    return model


def pretrained_file(preset: Preset, tag: str) -> Path:
    """The file of open_clip's pretrained weights `tag` for `preset`, downloaded unless it is here.

    Raises:
        InputError: there is no such tag, or no way to the hub.
    """
    tags = open_clip.list_pretrained_tags_by_model(preset.clip)
    if tag not in tags:
        choice = ", ".join((RANDOM, *tags))
        raise InputError(
            f"--init {tag}: neither a file nor weights for {preset.name}; choose one of {choice}"
        )
    settings = get_pretrained_cfg(preset.clip, tag)
    repository = settings["hf_hub"].strip("/")
    for name in FILES:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    if not is_reachable(constants.ENDPOINT):
        raise InputError(
            f"--init {tag}: {constants.ENDPOINT} cannot be reached; download {repository} elsewhere and give "
            f"its {FILES[-1]} with --init FILE, or --init {RANDOM}"
        )
    try:
        return Path(download_pretrained(settings))
    except OSError as error:
        raise InputError(f"--init {tag}: cannot be downloaded ({' '.join(str(error).split())})") from error


def is_reachable(address: str) -> bool:
    """Whether a web address answers within `HUB_TIMEOUT_S` seconds."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_TIMEOUT_S):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
