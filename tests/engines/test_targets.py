"""Names of what engines are built for."""

import pytest

from sed_trt.engines.targets import GPUS, canonical_target, capability_name, named_capability, target_fits
from sed_trt.errors import InputError


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("sm86", "sm86"),
        ("SM120", "sm120"),
        ("a6000", "sm86"),
        ("RTX A6000", "sm86"),
        ("NVIDIA RTX A6000", "sm86"),
        ("rtx-4090", "sm89"),
        ("A100", "sm80"),
        ("h200", "sm90"),
        ("RTX PRO 6000", "sm120"),
        ("NVIDIA GeForce RTX 3090", "sm86"),
        ("NVIDIA RTX 6000 Ada Generation", "sm89"),
        ("NVIDIA A100-SXM4-80GB", "sm80"),
        ("NVIDIA H100 PCIe", "sm90"),
        ("NVIDIA L40S", "sm89"),
        ("portable", "portable"),
        ("Current", "current"),
        ("cpu", "cpu"),
    ],
)
def test_names(text: str, target: str) -> None:
    assert canonical_target(text) == target


@pytest.mark.parametrize("text", ["", "sm77", "sm", "86", "8.6", "rtx", "ampere-plus", "a6000x"])
def test_unknown_name_lists_the_known_ones(text: str) -> None:
    with pytest.raises(InputError) as caught:
        canonical_target(text)
    line = str(caught.value)
    assert repr(text) in line
    assert "portable, current, cpu" in line
    assert "sm86" in line
    assert all(name in line for name in GPUS)
    assert "\n" not in line


@pytest.mark.parametrize("capability", sorted(set(GPUS.values())))
def test_capability_names_are_reversible(capability: tuple[int, int]) -> None:
    name = capability_name(capability)
    assert named_capability(name) == capability
    assert canonical_target(name) == name


def test_sets_have_no_capability() -> None:
    assert named_capability("portable") is None


@pytest.mark.parametrize(
    ("target", "fitting", "foreign"),
    [
        ("sm86", [(8, 6)], [(8, 0), (8, 9), (7, 5)]),
        ("sm120", [(12, 0)], [(1, 20), (12, 1)]),
        ("portable", [(8, 0), (8, 6), (12, 0)], [(7, 5), (8, 7), (9, 0), (10, 0), (11, 0), (12, 1)]),
        ("ampere-plus", [(8, 0), (9, 0)], [(7, 5)]),
        ("cpu", [], [(8, 6)]),
    ],
)
def test_fit(target: str, fitting: list[tuple[int, int]], foreign: list[tuple[int, int]]) -> None:
    known = [(7, 5), (8, 0), (8, 6), (12, 0)]
    assert all(target_fits(target, capability, known) for capability in fitting)
    assert not any(target_fits(target, capability, known) for capability in foreign)
