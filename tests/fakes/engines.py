"""The stages of a bundle in a few lines of numpy: a category's logit is how much of its colour a pixel has.

Shapes are those of the bundle contract with C = 3 and P = 1, so that what the runtime does between the stages
can be checked against a result known beforehand.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sed_trt.runtime import Vocabulary

SIDE = 64
RANKS = 8
# Logit of a category that is only padding.
PADDING = -60000.0
Arrays = Mapping[str, Any]

# Tokens of the colours' names, in their order, start here.
FIRST_COLOUR_TOKEN = 4
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (0.9, 0.9, 0.9)}


def colour_vocabulary(*names: str) -> Vocabulary:
    """A vocabulary of `COLOURS`, all of them by default."""
    chosen = names or tuple(COLOURS)
    return Vocabulary(chosen, np.array([[COLOURS[name]] for name in chosen], dtype=np.float32))


def votes(logits: np.ndarray) -> np.ndarray:
    """The vote table (8, T) of logits (T, H, W)."""
    ranked = np.argsort(-logits.reshape(len(logits), -1), axis=0, kind="stable")[:RANKS]
    table = np.zeros((RANKS, len(logits)), dtype=np.int32)
    for rank, winners in enumerate(ranked):
        table[rank] = np.bincount(winners, minlength=len(logits))
    # What is only padding ranks last, and without votes.
    table[:, logits.reshape(len(logits), -1).max(1) == PADDING] = 0
    return table


def masked(maps: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The maps of kept categories, `PADDING` where `kept` is -1."""
    return np.where((kept < 0)[:, None, None], np.float32(PADDING), maps)


def enlarge(maps: np.ndarray) -> np.ndarray:
    """Twice the height and width, by repetition."""
    return maps.repeat(2, axis=-2).repeat(2, axis=-1)


def _text(inputs: Arrays) -> Arrays:
    """The colour that the first word of a sentence names; every other word is grey."""
    table = np.ones((FIRST_COLOUR_TOKEN + len(COLOURS), 3), dtype=np.float32)
    table[FIRST_COLOUR_TOKEN:] = list(COLOURS.values())
    embeddings = table[inputs["tokens"][:, 1]]
    return {"embedding": embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)}


def _pixels(inputs: Arrays) -> Arrays:
    image = inputs["image"][0]
    rows = np.arange(SIDE) * image.shape[0] // SIDE
    columns = np.arange(SIDE) * image.shape[1] // SIDE
    return {"pixels": (image[rows][:, columns].transpose(2, 0, 1)[None] / 255).astype(np.float32)}


def _image(inputs: Arrays) -> Arrays:
    pixels = inputs["pixels"]
    guidance = {f"guidance{n}": np.zeros((len(pixels), 1, 2**n * 2, 2**n * 2), np.float32) for n in (1, 2, 3)}
    return {"embed": pixels[:, :, 16::32, 16::32]} | guidance


def _scout(inputs: Arrays) -> Arrays:
    logits = np.einsum("tpc,chw->thw", inputs["text"], inputs["embed"][0])
    return {"logits0": logits, "votes0": votes(logits)}


def _select(inputs: Arrays) -> Arrays:
    table, rule = inputs["votes"].astype(int), inputs["rule"]
    alive = np.flatnonzero(inputs["ids"] >= 0)
    borda = np.arange(RANKS, 0, -1) @ table[:, alive]
    best = alive[np.argsort(-borda, kind="stable")]
    enough = rule[:RANKS] @ table >= rule[RANKS]
    kept = np.array(sorted(each for each in best[: rule[RANKS + 1]] if enough[each]) or best[:1])
    slots = len(inputs["slots"])
    selected = np.full((2, slots), -1)
    selected[0, : len(kept)] = kept[:slots]
    selected[1, : len(kept)] = inputs["ids"][kept[:slots]]
    return {"selected": selected[0], "selected_ids": selected[1], "count": np.array([len(kept)])}


def _gather1(inputs: Arrays) -> Arrays:
    return {"kept_text": inputs["text"][np.maximum(inputs["kept0"], 0)]}


def _decode1(inputs: Arrays) -> Arrays:
    logits = _scout({"embed": inputs["embed"], "text": inputs["kept_text"]})["logits0"]
    x = enlarge(masked(logits, inputs["kept0"]))
    return {"x1": x[:, None], "cost1": x[:, None], "logits1": x, "votes1": votes(x)}


def _gather2(inputs: Arrays) -> Arrays:
    rows = np.maximum(inputs["kept1"], 0)
    return {"kept_x1": inputs["x1"][rows], "kept_cost1": inputs["cost1"][rows]}


def _decode2(inputs: Arrays) -> Arrays:
    x = enlarge(masked(inputs["kept_x1"][:, 0], inputs["kept1"]))
    return {"x2": x[:, None], "cost2": x[:, None], "logits2": x, "votes2": votes(x)}


def _gather3(inputs: Arrays) -> Arrays:
    rows = np.maximum(inputs["kept2"], 0)
    return {"kept_x2": inputs["x2"][rows], "kept_cost2": inputs["cost2"][rows]}


def _decode3(inputs: Arrays) -> Arrays:
    return {"logits": enlarge(masked(inputs["kept_x2"][:, 0], inputs["kept2"]))}


def _label(inputs: Arrays) -> Arrays:
    rows, columns = (np.rint(inputs[name]).astype(int) for name in ("rows", "columns"))
    logits = inputs["logits"][:, rows][:, :, columns]
    return {"labels": inputs["kept"][logits.argmax(0)].astype(np.int32), "scores": logits.max(0)}


def _label_gpu(inputs: Arrays) -> Arrays:
    outputs = _label(inputs)
    labels = outputs["labels"].astype("<u2")
    return {"label_bytes": labels[..., None].view(np.uint8), "label_scores": outputs["scores"]}


STAGES: dict[str, Callable[[Arrays], Arrays]] = {
    "text": _text,
    "pixels": _pixels,
    "image": _image,
    "scout": _scout,
    "select": _select,
    "gather1": _gather1,
    "decode1": _decode1,
    "gather2": _gather2,
    "decode2": _decode2,
    "gather3": _gather3,
    "decode3": _decode3,
    "label": _label,
    "label_gpu": _label_gpu,
}


class FakeEngine:
    """One stage; counts its calls and remembers the shapes it was given."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shapes: list[dict[str, tuple[int, ...]]] = []

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run the stage, refusing what a real engine would misread."""
        for name, array in inputs.items():
            assert array.flags.c_contiguous, f"{self.name}: {name} is not contiguous"
        self.shapes.append({name: array.shape for name, array in inputs.items()})
        outputs = STAGES[self.name](inputs)
        return {name: np.ascontiguousarray(array) for name, array in outputs.items()}

    def run_on_device(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run the stage: all that there is are arrays on the host."""
        return self.run(inputs)


class FakeEngines:
    """All stages by name; counts the arrays copied to its device, the bytes of each from it, and warm-ups."""

    backend = "fake"
    reason = "asked for"

    def __init__(
        self,
        buckets: tuple[int, ...] | None = None,
        decodes_at_once: int = 1,
        images_at_once: int | None = None,
        label_stage: str = "label",
    ) -> None:
        self.decodes_at_once = decodes_at_once
        self.images_at_once = images_at_once
        self.folds_vocabularies = False
        self.label_stage = label_stage
        other = "label" if label_stage == "label_gpu" else "label_gpu"
        self.engines = {name: FakeEngine(name) for name in STAGES if name != other}
        self.buckets = buckets
        self.uploads = 0
        self.warm_ups = 0
        self.downloaded: list[int] = []

    def stack(self, values: Sequence[Any]) -> Any:
        return np.concatenate(values)

    def to_device(self, array: np.ndarray) -> np.ndarray:
        self.uploads += 1
        return array

    def to_host(self, value: Any) -> Any:
        self.downloaded.append(value.nbytes)
        return value

    def download(self, value: np.ndarray) -> Callable[[], np.ndarray]:
        return lambda: value

    def warmed_up(self) -> None:
        self.warm_ups += 1

    def __getitem__(self, stage: str) -> FakeEngine:
        return self.engines[stage]


def quarters(height: int = 40, width: int = 60) -> np.ndarray:
    """An image with a red, green, blue and white quarter, uint8 (H, W, 3)."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[: height // 2, : width // 2, 0] = 255
    image[: height // 2, width // 2 :, 1] = 255
    image[height // 2 :, : width // 2, 2] = 255
    image[height // 2 :, width // 2 :] = 255
    return image
