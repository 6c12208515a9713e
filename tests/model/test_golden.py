"""sed-b against the reference implementation's outputs."""

import numpy as np
import pytest
import torch

from sed_trt.model import SED
from sed_trt.model.labels import label_map
from sed_trt.model.sed import Rejected
from sed_trt.stages import VOTE_RANKS
from sed_trt.tests.fakes.golden import DATA, golden, random_text

TOLERANCE = 1e-4
AGREEMENT = 0.997


class Case:
    """One golden file with our outputs for its image and text.

    The image is encoded once; `test_sed` shows that `forward`, `reject` and `segment` are these steps.
    """

    def __init__(self, model: SED, arrays: dict[str, np.ndarray], text: torch.Tensor) -> None:
        self.arrays, self.text = arrays, text
        size = arrays["image"].shape[:2]
        with torch.no_grad():
            encoded = model.encode_images(torch.from_numpy(arrays["image"]).unsqueeze(0))
            output = model.decode(*encoded, text)
        self.embed = encoded[0][0].numpy()
        self.logits = output.logits[0].numpy()
        self.aux = [aux[0].numpy() for aux in output.aux]
        self.rejected = model.decode_rejecting(*encoded, text, k=1)
        self.labels_full = label_map(output.logits[0], torch.arange(len(text)), *size).numpy()
        self.labels_fast = label_map(self.rejected.logits, self.rejected.kept, *size).numpy()


@pytest.fixture(scope="module")
def random_case(base_model: SED) -> Case:
    """Random unit vectors as text: quick, and rejection really drops categories."""
    arrays = golden("random")
    seed, categories, width = (int(value) for value in arrays["text_seed"])
    return Case(base_model, arrays, torch.from_numpy(random_text(seed, categories, width)))


@pytest.fixture(scope="module")
def named_case(base_model: SED) -> Case:
    """Embedded category names: minutes in the text tower."""
    from sed_trt.runtime import published

    return Case(base_model, golden("pc59"), base_model.encode_vocabulary(published("pc59")))


CASES = [
    pytest.param("random_case", id="random"),
    pytest.param("named_case", id="pc59", marks=pytest.mark.slow),
]


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """The case a test is parametrized with."""
    named: Case = request.getfixturevalue(request.param)
    return named


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_maps_agree(case: Case) -> None:
    arrays = case.arrays
    pairs = {
        "embed": (case.embed, arrays["dense"]),
        "aux0": (case.aux[0], arrays["aux0"]),
        "aux1": (case.aux[1][:, ::2, ::2], arrays["aux1"]),
        "aux2": (case.aux[2][:, ::4, ::4], arrays["aux2"]),
        "logits": (case.logits[:, ::8, ::8], arrays["logits"]),
    }
    for name, (ours, theirs) in pairs.items():
        assert np.abs(ours - theirs).max() < TOLERANCE, name


@pytest.mark.slow
def test_named_text_agrees(named_case: Case) -> None:
    assert np.abs(named_case.text.numpy()[::8, ::16] - named_case.arrays["text"]).max() < TOLERANCE


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_labels_agree(case: Case) -> None:
    assert (case.labels_full == case.arrays["labels_full"]).mean() >= AGREEMENT
    assert (case.labels_fast == case.arrays["labels_fast"]).mean() >= AGREEMENT


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_kept_sets_agree(case: Case) -> None:
    logits = [case.aux[0], *rejected_aux(case)]
    for point, survivors in enumerate(case.rejected.survivors):
        ours = set(survivors.tolist())
        theirs = set(np.flatnonzero(case.arrays[f"kept{point}"]).tolist())
        for category in ours ^ theirs:
            assert wins_barely(logits[point], category), (point, category)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_probabilities_of_the_kept_agree(case: Case) -> None:
    theirs = case.arrays["fast"]
    ours = np.zeros_like(theirs)
    rejected: Rejected = case.rejected
    ours[rejected.kept.numpy()] = torch.sigmoid(rejected.logits)[:, ::8, ::8].numpy()
    assert np.abs(ours - theirs).max() < TOLERANCE


def rejected_aux(case: Case) -> list[np.ndarray]:
    """head1 and head2 without rejection, whose attention sees more categories, at the categories alive."""
    kept = case.rejected.survivors[0].numpy()
    first = case.aux[1][kept]
    return [first, case.aux[2][kept][case.rejected.survivors[1].numpy()]]


def wins_barely(logits: np.ndarray, category: int) -> bool:
    """Whether `category` is first at a single pixel at most, by less than 1e-5."""
    others = np.delete(logits, category, axis=0).max(0)
    lead = logits[category] - others
    return bool((lead > -1e-5).sum() <= 1 and lead.max() < 1e-5)


@pytest.mark.parametrize("k", [0, VOTE_RANKS + 1])
def test_k_out_of_range_is_refused(tiny_model: SED, k: int) -> None:
    text = torch.zeros(3, len(tiny_model.templates), tiny_model.preset.embed_dim)
    with pytest.raises(ValueError, match=f"k is {k}.*give 1 to 8"):
        tiny_model.reject(torch.zeros(8, 8, 3, dtype=torch.uint8), text, k)


@pytest.mark.parametrize(("preset", "which"), [("sed-b", "base"), ("sed-l", "large")])
def test_published_keys_and_shapes(preset: str, which: str) -> None:
    import json

    from sed_trt.model import preset_named
    from sed_trt.model.checkpoint import published_name

    with torch.device("meta"):
        model = SED(preset_named(preset))
    ours = {published_name(name): list(value.shape) for name, value in model.state_dict().items()}
    assert ours == json.loads((DATA / f"checkpoint_{which}.json").read_text())
