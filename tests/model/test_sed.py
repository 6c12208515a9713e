"""The PyTorch model's interface: batches, sizes, names, devices."""

import numpy as np
import pytest
import torch

from sed_trt.errors import InputError
from sed_trt.model import PRESETS, SED
from sed_trt.model.labels import label_map
from sed_trt.model.text import templates_of
from sed_trt.train.scenes import VOCABULARY, make_scene


@pytest.fixture(scope="module")
def vocabulary_text(tiny_model: SED) -> torch.Tensor:
    """Embeddings of all names of the scenes."""
    return tiny_model.encode_vocabulary(VOCABULARY)


@pytest.fixture(scope="module")
def text(vocabulary_text: torch.Tensor) -> torch.Tensor:
    """Embeddings of a few names."""
    return vocabulary_text[:12]


def scene_image(seed: int, size: int = 120) -> torch.Tensor:
    """A scene, uint8 (size, size, 3)."""
    return torch.from_numpy(make_scene(seed, size).image)


@torch.no_grad()
def test_a_batch_is_its_images_one_by_one(tiny_model: SED, text: torch.Tensor) -> None:
    batch = torch.stack([scene_image(0), scene_image(1), scene_image(2)])
    together = tiny_model(batch, text)
    for index, image in enumerate(batch):
        alone = tiny_model(image.unsqueeze(0), text)
        assert (together.logits[index] - alone.logits[0]).abs().max() < 1e-4
        for ours, theirs in zip(together.aux, alone.aux, strict=True):
            assert (ours[index] - theirs[0]).abs().max() < 1e-4


@torch.no_grad()
def test_each_image_may_have_its_own_categories(tiny_model: SED, text: torch.Tensor) -> None:
    batch = torch.stack([scene_image(0), scene_image(1)])
    own = torch.stack([text[:5], text[5:10]])
    together = tiny_model(batch, own)
    for index in range(2):
        alone = tiny_model(batch[index : index + 1], own[index])
        assert (together.logits[index] - alone.logits[0]).abs().max() < 1e-4


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(1, 1), (50, 300), (256, 256)])
def test_shapes_follow_from_the_preset_not_the_image(
    tiny_model: SED, text: torch.Tensor, height: int, width: int
) -> None:
    image = torch.zeros(height, width, 3, dtype=torch.uint8)
    output = tiny_model(image.unsqueeze(0), text)
    assert output.logits.shape == (1, 12, 64, 64)
    assert [tuple(aux.shape) for aux in output.aux] == [(1, 12, 8, 8), (1, 12, 16, 16), (1, 12, 32, 32)]
    assert tiny_model.segment(image, text).shape == (height, width)


def test_vocabulary_is_unit_vectors_per_template(tiny_model: SED) -> None:
    text = tiny_model.encode_vocabulary(["red car", "tree, trees"])
    assert text.shape == (2, len(tiny_model.templates), tiny_model.preset.embed_dim)
    assert torch.allclose(text.norm(dim=-1), torch.ones(text.shape[:2]))


def test_synonyms_are_averaged_per_template(tiny_model: SED) -> None:
    joint, first, second = tiny_model.encode_vocabulary(["sea, water", "sea", "water"])
    expected = torch.nn.functional.normalize(first + second, dim=-1)
    assert (joint - expected).abs().max() < 1e-5


@pytest.mark.parametrize("names", [[], [""], ["sky", "tree, "]])
def test_vocabulary_without_a_name_is_refused(tiny_model: SED, names: list[str]) -> None:
    with pytest.raises(InputError):
        tiny_model.encode_vocabulary(names)


def test_name_that_is_too_long_for_the_text_tower_is_refused(tiny_model: SED) -> None:
    # The longest template, "there is a … in the scene.", has seven tokens of its own, and the frame has two.
    room = tiny_model.clip.context_length - 9
    assert len(tiny_model.encode_vocabulary(["red " * (room - 1) + "car"])) == 1
    with pytest.raises(InputError, match=r"has more than the 40 tokens .* shorten the name"):
        tiny_model.encode_vocabulary(["sky", "red " * room + "car"])


def test_published_presets_use_the_eighty_templates() -> None:
    for name in ("sed-b", "sed-l"):
        templates = templates_of(PRESETS[name])
        assert len(templates) == 80
        assert all(template.count("{}") == 1 for template in templates)


def test_k_larger_than_the_vocabulary_keeps_everything(tiny_model: SED) -> None:
    text = tiny_model.encode_vocabulary(["sky", "grass", "road"])
    left = tiny_model.reject(scene_image(3), text, k=8)
    assert left.kept.tolist() == [0, 1, 2]
    whole = tiny_model.segment(scene_image(3), text, k=None)
    assert torch.equal(tiny_model.segment(scene_image(3), text, k=8), whole)


def test_labels_are_of_categories_that_survived(tiny_model: SED, vocabulary_text: torch.Tensor) -> None:
    image = torch.from_numpy(make_scene(5, 200, split="test").image)
    left = tiny_model.reject(image, vocabulary_text, k=2)
    first, second, third = left.survivors
    assert torch.equal(left.kept, first[second][third])
    assert len(left.kept) <= len(second) <= len(first) < len(VOCABULARY)
    assert set(tiny_model.segment(image, vocabulary_text, k=2).unique().tolist()) <= set(left.kept.tolist())


@pytest.mark.parametrize("k", [1, None])
@torch.no_grad()
def test_public_methods_are_the_steps_one_after_the_other(
    tiny_model: SED, text: torch.Tensor, k: int | None
) -> None:
    image = scene_image(6)
    encoded = tiny_model.encode_images(image.unsqueeze(0))
    left, rejected = tiny_model.decode_rejecting(*encoded, text, k), tiny_model.reject(image, text, k)
    assert torch.equal(left.kept, rejected.kept)
    assert torch.equal(left.logits, rejected.logits)
    labels = label_map(left.logits, left.kept, *image.shape[:2])
    assert torch.equal(labels, tiny_model.segment(image, text, k))
    output, whole = tiny_model.decode(*encoded, text), tiny_model(image.unsqueeze(0), text)
    assert torch.equal(output.logits, whole.logits)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(output.aux, whole.aux, strict=True))


def test_trained_network_names_what_fills_the_image(tiny_model: SED, vocabulary_text: torch.Tensor) -> None:
    accuracies = []
    for seed in range(6):
        scene = make_scene(seed, 200, split="test")
        labels = tiny_model.segment(torch.from_numpy(scene.image), vocabulary_text, k=8).numpy()
        accuracies.append(np.mean(labels == scene.labels))
    assert np.mean(accuracies) > 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@torch.no_grad()
def test_cuda_agrees_with_the_cpu(tiny_checkpoint: str, tiny_model: SED, text: torch.Tensor) -> None:
    on_gpu = SED.from_checkpoint(tiny_checkpoint).cuda()
    image = scene_image(4)
    ours, theirs = on_gpu(image.unsqueeze(0), text), tiny_model(image.unsqueeze(0), text)
    assert (ours.logits.cpu() - theirs.logits).abs().max() < 1e-2
    assert (on_gpu.segment(image, text).cpu() == tiny_model.segment(image, text)).float().mean() > 0.997
