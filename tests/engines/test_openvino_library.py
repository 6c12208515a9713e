"""The installed OpenVINO, its self-tests, and what is computed for the precision of a bundle."""

import importlib
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sed_trt.engines.openvino import library as module
from sed_trt.engines.openvino.library import SelfTest, error_line, library, self_test
from sed_trt.engines.openvino.precision import BF16_HINT, TESTED, arithmetic, stage_hint
from sed_trt.errors import InputError

AMX = SelfTest("bf16", "brgemm_avx512_amx_bf16", 0.0)
AVX = SelfTest("bf16", "brgemm_avx512_bf16", 0.0)
NO_KERNEL = SelfTest("bf16", "", float("inf"))
WRONG = SelfTest("bf16", "brgemm_avx512_bf16", 4.5)
EIGHT = SelfTest("int8", "brgemm_avx512_amx_i8", 0.0)
OVERFLOWS = SelfTest("int8", "brgemm_avx512_i8", 0.18)


@pytest.mark.parametrize(
    ("precision", "tests", "hint", "dtype", "note"),
    [
        ("fp32", {}, "f32", "float32", None),
        ("fp16", {}, "f32", "float32", "FP16 weights computed in FP32, which CPUs do faster"),
        ("bf16", {"bf16": AMX}, BF16_HINT, "bfloat16", "computed in BF16 on AMX"),
        (
            "bf16",
            {"bf16": AVX},
            "f32",
            "float32",
            "BF16 weights computed in FP32: this processor has no AMX, without which BF16 is slower",
        ),
        (
            "bf16",
            {"bf16": WRONG},
            "f32",
            "float32",
            "BF16 weights computed in FP32: BF16 failed its self-test on this processor: "
            "wrong by 450% (brgemm_avx512_bf16)",
        ),
        (
            "bf16",
            {"bf16": NO_KERNEL},
            "f32",
            "float32",
            "BF16 weights computed in FP32: BF16 failed its self-test on this processor: "
            "OpenVINO cannot compute it on this processor",
        ),
        (
            "int8",
            {"int8": EIGHT, "bf16": AMX},
            BF16_HINT,
            "bfloat16",
            "8-bit products, the rest in BF16 on AMX",
        ),
        (
            "int8",
            {"int8": EIGHT, "bf16": AVX},
            "f32",
            "float32",
            "8-bit products, the rest in FP32: this processor has no AMX, without which BF16 is slower",
        ),
    ],
)
def test_precision_is_the_bundles_word(
    precision: str, tests: dict[str, SelfTest], hint: str, dtype: str, note: str | None
) -> None:
    chosen = arithmetic(precision, tests)
    assert (chosen.hint, chosen.dtype, chosen.note) == (hint, dtype, note)
    assert set(tests) == set(TESTED[precision])
    for stage in ("text", "pixels", "label"):
        assert stage_hint(stage, chosen) == "f32"
    assert stage_hint("image", chosen) == hint


def test_wrong_8_bit_products_are_refused() -> None:
    with pytest.raises(InputError, match=r"8-bit products failed .*: wrong by 18% .*; use a bundle"):
        arithmetic("int8", {"int8": OVERFLOWS, "bf16": AMX})


def test_a_product_that_is_no_number_fails() -> None:
    assert not SelfTest("bf16", "brgemm_avx512_amx_bf16", float("nan")).passed


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"'openvino' is not installed; in sed-trt's folder, pip install"):
        library()


def test_broken_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", ModuleType("openvino"))
    with pytest.raises(InputError, match=r"'openvino' is broken .*--force-reinstall"):
        library()


def test_old_package(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("openvino")
    old.__version__ = "2026.1.0-21367-63e31528c62-releases/2026/1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openvino", old)
    with pytest.raises(InputError, match=r"version 2026\.1\.0.* is installed, expected at least 2026\.2"):
        library()


def test_errors_become_one_line() -> None:
    text = "Exception from src/inference/src/cpp/core.cpp:84:\nException from a.cpp:1:\nno such file\n\n"
    assert error_line(RuntimeError(text)) == "no such file"
    assert error_line(RuntimeError("")) == "RuntimeError"
    assert len(error_line(RuntimeError("x" * 999))) < 250


@pytest.fixture
def real() -> ModuleType:
    """The installed OpenVINO."""
    pytest.importorskip("openvino")
    return library()


def test_self_tests_compute_a_product(real: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a product that is off by more than a rounding is noticed."""
    for precision in ("bf16", "int8"):
        test = self_test(precision)
        assert test is self_test(precision)
        assert (test.deviation < float("inf")) == bool(test.kernel)
    module._self_test.cache_clear()
    product = module._product
    monkeypatch.setattr(module, "_product", lambda weights, eight: product(np.roll(weights, 1), eight))
    wrong = self_test("int8")
    assert not wrong.passed
    assert "wrong by" in wrong.outcome
    module._self_test.cache_clear()


OUTCOMES = """
from sed_trt.engines.openvino.library import self_test
for precision in ("bf16", "int8"):
    test = self_test(precision)
    print(precision, test.passed, test.on_amx, bool(test.kernel))
"""


def outcomes(isa: str) -> list[list[str]]:
    """Words of the self-tests' outcomes in a process that uses the instructions up to `isa`."""
    done = subprocess.run(
        [sys.executable, "-c", OUTCOMES],
        capture_output=True,
        text=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa},
        check=True,
    )
    return [line.split() for line in done.stdout.splitlines()]


def test_processors_with_less(real: ModuleType) -> None:
    """What OpenVINO itself lists as supported is the same in all three cases."""
    if not self_test("bf16").on_amx:
        pytest.skip("this processor has no AMX")
    assert outcomes("AVX512_CORE_BF16") == [
        ["bf16", "True", "False", "True"],
        ["int8", "True", "False", "True"],
    ]
    # Without VNNI, sums of 8-bit products overflow.
    assert outcomes("AVX512_CORE")[1] == ["int8", "False", "False", "True"]
    assert outcomes("AVX2")[0] == ["bf16", "False", "False", "False"]


def test_version_is_the_packages(real: Any) -> None:
    assert real.__version__.startswith(module.version())
    assert importlib.import_module("openvino") is real
