"""Sentences, prompt embeddings and bands as the host computes them for PyTorch and for bundles."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sed_trt import host
from sed_trt.model.labels import label_map


def test_sentences_are_ordered_by_name_then_synonym_then_template() -> None:
    assert host.prompt_sentences(["sea,  water", "dog"], ["a {}.", "{}"]) == [
        "a sea.", "sea", "a water.", "water", "a dog.", "dog",
    ]  # fmt: skip


def test_prompts_are_averaged_over_synonyms() -> None:
    random = np.random.default_rng(0)
    sentences = torch.from_numpy(random.standard_normal((6, 8), dtype=np.float32))
    text = host.average_prompts(F.normalize(sentences, dim=1).numpy(), ["sea, water", "dog"], prompts=2)
    each = F.normalize(sentences, dim=1).unflatten(0, (3, 2))
    expected = F.normalize(torch.stack([each[:2].mean(0), each[2]]), dim=-1)
    assert text.dtype == np.float32
    assert np.abs(text - expected.numpy()).max() < 1e-6


@pytest.mark.parametrize("limits", [(None, None), (3, None), (None, 4), (3, 4)])
@pytest.mark.parametrize(("height", "width", "categories"), [(7, 11, 5), (1, 300, 5), (9, 2, 500), (4, 4, 1)])
def test_bands_cover_every_pixel_once_within_their_limits(
    limits: tuple[int | None, int | None],
    height: int,
    width: int,
    categories: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "MAX_BAND_VALUES", 100)
    rows, columns = limits
    covered = np.zeros((height, width), int)
    for down, across in host.label_bands(height, width, categories, rows, columns):
        band = covered[down, across]
        band += 1
        assert band.size * categories <= max(100, categories)
        assert band.shape[0] <= (rows or height) and band.shape[1] <= (columns or width)
    assert (covered == 1).all()


def test_labels_do_not_depend_on_the_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([2, 3, 5, 7, 11])
    whole = label_map(logits, kept, 30, 50)
    monkeypatch.setattr(host, "MAX_BAND_VALUES", 100)
    assert torch.equal(label_map(logits, kept, 30, 50), whole)
