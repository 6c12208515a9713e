"""OpenVINO: the installed package, and a test of the low precisions on this processor."""

import functools
import threading
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import InputError

DEVICE = "CPU"
# Earlier ones cannot read the group norms of BF16 graphs.
MIN_VERSION = (2026, 2)
INSTALL = "in sed-trt's folder, pip install -e '.[cpu]'"
# The sizes of the tested products: more than one tile of AMX on each axis, and none a multiple of a tile.
_ROWS, _INNER, _COLUMNS = 50, 200, 72
# Largest deviation from the exact product, relative to its largest value. The inputs are small integers, so
# a right product is exact up to the rounding of its result, which is at most 2**-8.
_TOLERANCE = 0.01
# What is added to the factors of the convolution, whose 8-bit values have a zero point of 128 minus this.
_SHIFT = 100
_ERROR_LETTERS = 200


@dataclass(frozen=True)
class SelfTest:
    """A small product in a low precision, compared with the exact one.

    Attributes:
        precision: "bf16" or "int8".
        kernel: OpenVINO's name of the kernel that computed it, for example "brgemm_avx512_amx_bf16"; "" where
            OpenVINO has none.
        deviation: the largest one from the exact product, relative to its largest value; infinite where
            OpenVINO could not compute it.
    """

    precision: str
    kernel: str
    deviation: float

    @property
    def passed(self) -> bool:
        """Whether the products of this precision can be trusted."""
        # False for a NaN too.
        return self.deviation <= _TOLERANCE

    @property
    def on_amx(self) -> bool:
        """Whether the processor's matrix unit computed the product."""
        return "amx" in self.kernel

    @property
    def outcome(self) -> str:
        """The outcome as one phrase."""
        if np.isinf(self.deviation):
            return "OpenVINO cannot compute it on this processor"
        if self.passed:
            return f"right ({self.kernel})"
        return f"wrong by {self.deviation:.0%} ({self.kernel})"


def library() -> ModuleType:
    """The package openvino.

    Raises:
        InputError: it is missing, broken, or older than `MIN_VERSION`.
    """
    try:
        import openvino

        version = str(openvino.__version__)
        numbers = tuple(int(number) for number in version.split("-")[0].split(".")[:2])
    except ModuleNotFoundError as error:
        raise InputError(
            f"backend openvino: the package {error.name!r} is not installed; {INSTALL}"
        ) from error
    except (ImportError, OSError, RuntimeError, AttributeError, ValueError) as error:
        raise InputError(
            f"backend openvino: the package 'openvino' is broken ({error}); {INSTALL} --force-reinstall"
        ) from error
    if numbers < MIN_VERSION:
        least = ".".join(map(str, MIN_VERSION))
        raise InputError(
            f"backend openvino: version {version} is installed, expected at least {least}; "
            "pip install -U openvino"
        )
    return openvino


def version() -> str:
    """The installed version, for example "2026.4.1-22982-e213a147257".

    Raises:
        InputError: as `library`.
    """
    return str(library().__version__).split("-releases/")[0]


def core() -> Any:
    """The `openvino.Core` of this process.

    Raises:
        InputError: as `library`, or OpenVINO does not start.
    """
    return _core(library())


@functools.cache
def _core(openvino: ModuleType) -> Any:
    try:
        return openvino.Core()
    except RuntimeError as error:
        raise InputError(
            f"backend openvino: OpenVINO does not start ({error_line(error)}); {INSTALL} --force-reinstall"
        ) from error


def processor() -> str:
    """The processor's name, as OpenVINO says.

    Raises:
        InputError: as `core`, or OpenVINO has no CPU plugin that works.
    """
    return str(_property("FULL_DEVICE_NAME"))


def abilities() -> list[str]:
    """The low precisions that OpenVINO says the processor supports, "BF16" and the like, sorted.

    Raises:
        InputError: as `processor`.
    """
    return sorted({"BF16", "FP16", "INT8"} & set(_property("OPTIMIZATION_CAPABILITIES")))


def _property(name: str) -> Any:
    try:
        return core().get_property(DEVICE, name)
    except RuntimeError as error:
        raise InputError(
            f"backend openvino: its CPU plugin does not work ({error_line(error)}); "
            f"{INSTALL} --force-reinstall"
        ) from error


def error_line(error: Exception) -> str:
    """What an exception of OpenVINO says, without the places in its source, as one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    text = " ".join(said or lines) or type(error).__name__
    return text if len(text) <= _ERROR_LETTERS else f"{text[:_ERROR_LETTERS]}…"


_test_lock = threading.Lock()


def self_test(precision: str) -> SelfTest:
    """Whether this processor computes right products in "bf16" or "int8"; tested once per process.

    OpenVINO lists a precision as supported on processors where it has no kernel for it, or one whose sums
    overflow, so a product is computed.

    Raises:
        InputError: as `core`.
    """
    library()
    with _test_lock:
        return _self_test(precision)


@functools.cache
def _self_test(precision: str) -> SelfTest:
    # Integers that the precision holds exactly, over its whole range for 8 bits.
    bound = 128 if precision == "int8" else 16
    generator = np.random.default_rng(0)
    left = generator.integers(-bound, bound, (_ROWS, _INNER)).astype(np.float32)
    right = generator.integers(-bound + 1, bound, (_INNER, _COLUMNS)).astype(np.float32)
    exact = left @ right
    hint = "bf16" if precision == "bf16" else "f32"
    try:
        compiled = core().compile_model(
            _product(right, precision == "int8"), DEVICE, {"INFERENCE_PRECISION_HINT": hint}
        )
        request = compiled.create_infer_request()
        outputs = [np.array(output) for output in request.infer([left, right, left + _SHIFT]).values()]
        kernel = _product_kernel(compiled)
    except RuntimeError:
        return SelfTest(precision, "", float("inf"))
    expected = [exact, exact, ((left + _SHIFT) @ right).T.reshape(1, _COLUMNS, _ROWS, 1)]
    deviations = [float(np.abs(out - each).max()) for out, each in zip(outputs, expected, strict=True)]
    return SelfTest(precision, kernel, max(deviations) / float(np.abs(exact).max()))


def _product(weights: np.ndarray, eight_bits: bool) -> Any:
    """A model of the products of its inputs: `left` and constant weights, `left` and `right`, `shifted` and
    the weights as a 1x1 convolution, whose 8-bit activations have a zero point as those of a bundle.
    """
    from openvino import Model
    from openvino import opset13 as op

    left = op.parameter([_ROWS, _INNER], np.float32, name="left")
    right = op.parameter([_INNER, _COLUMNS], np.float32, name="right")
    shifted = op.parameter([_ROWS, _INNER], np.float32, name="shifted")

    def rounded(value: Any, zero: int) -> Any:
        if not eight_bits:
            return value
        low, high = op.constant(np.float32(-zero)), op.constant(np.float32(255 - zero))
        return op.fake_quantize(value, low, high, low, high, 256)

    def constant(values: np.ndarray) -> Any:
        if not eight_bits:
            return op.constant(values)
        return op.multiply(op.convert(op.constant(values.astype(np.int8)), "f32"), np.float32(1))

    order = op.constant(np.array([1, 0]))
    channels = op.reshape(op.transpose(shifted, order), op.constant([1, _INNER, _ROWS, 1]), False)
    kernel = np.ascontiguousarray(weights.T).reshape(_COLUMNS, _INNER, 1, 1)
    products = [
        op.matmul(rounded(left, 128), constant(weights), False, False),
        op.matmul(rounded(left, 128), rounded(right, 128), False, False),
        op.convolution(rounded(channels, 128 - _SHIFT), constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1]),
    ]
    return Model(products, [left, right, shifted])


def _product_kernel(compiled: Any) -> str:
    """OpenVINO's name of the kernel that computes a compiled model's product with constant weights."""
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        if str(facts["layerType"].value) == "FullyConnected":
            return str(facts["primitiveType"].value)
    return ""
