"""TensorRT and TensorRT-RTX: found, refused, and set up each in its way."""

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from sed_trt.engines.device.gpu import Gpu
from sed_trt.engines.targets import ANY_TARGET, TENSORRT_BACKENDS, BuildOptions
from sed_trt.engines.trt.library import Library, load_library
from sed_trt.errors import InputError
from sed_trt.tests.fakes.device import FakeDevice
from sed_trt.tests.fakes.tensorrt import Config, fake_tensorrt

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
EVERYTHING = BuildOptions(1 << 20, 2, False, "ampere-plus", True, True)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget loaded libraries before and after each test."""
    load_library.cache_clear()
    yield
    load_library.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, backend: str, module: Any) -> None:
    monkeypatch.setitem(sys.modules, MODULES[backend], module)


@pytest.mark.parametrize(
    ("backend", "version"),
    [
        ("tensorrt", "10.3.0"),
        ("tensorrt", "10.14.1.48.post1"),
        ("tensorrt", "11.4.0.106"),
        ("tensorrt-rtx", "1.4.0.76"),
        ("tensorrt-rtx", "1.7.1.116"),
    ],
)
def test_versions_in_range(backend: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_tensorrt(version)
    install(monkeypatch, backend, module)
    assert load_library(backend) == Library(backend, module, version)


@pytest.mark.parametrize(
    ("backend", "version", "wanted"),
    [
        ("tensorrt", "10.2.0", ">=10.3,<12"),
        ("tensorrt", "8.6.1", ">=10.3,<12"),
        ("tensorrt", "12.0.0.1", ">=10.3,<12"),
        ("tensorrt-rtx", "1.3.0.35", ">=1.4,<2"),
        ("tensorrt-rtx", "2.0", ">=1.4,<2"),
        ("tensorrt-rtx", "unknown", ">=1.4,<2"),
    ],
)
def test_versions_outside(backend: str, version: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, backend, fake_tensorrt(version))
    with pytest.raises(InputError) as caught:
        load_library(backend)
    line = str(caught.value)
    assert f"version {version} is installed" in line
    assert f"pip install '{backend}{wanted}'" in line


@pytest.mark.parametrize("backend", TENSORRT_BACKENDS)
def test_missing(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, MODULES[backend], raising=False)
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(InputError, match=f"backend {backend}: .* is not installed; pip install '{backend}>="):
        load_library(backend)


@pytest.mark.parametrize("backend", TENSORRT_BACKENDS)
def test_broken(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # An interrupted uninstall leaves a folder that imports but is empty.
    install(monkeypatch, backend, ModuleType(MODULES[backend]))
    with pytest.raises(InputError, match=rf"backend {backend}: .* is broken \(.*--force-reinstall"):
        load_library(backend)


def test_unknown_backend() -> None:
    with pytest.raises(InputError, match="'trt' is unknown; choose one of tensorrt, tensorrt-rtx"):
        load_library("trt")


def test_nothing_is_set_that_nobody_asked_for() -> None:
    for backend, target in (("tensorrt", "sm86"), ("tensorrt-rtx", "portable")):
        module = fake_tensorrt("11.0", ["SM86"])
        config = Config()
        untouched = set(vars(config))
        Library(backend, module, "11.0").configure(config, BuildOptions(), target)
        assert set(vars(config)) - untouched == {"profiling_verbosity"}
        assert not config.flags and not config.limits and not config.capabilities


@pytest.mark.parametrize("backend", TENSORRT_BACKENDS)
def test_float32_is_float32(backend: str) -> None:
    module = fake_tensorrt("11.0", ["SM86"])
    config = Config()
    Library(backend, module, "11.0").configure(config, BuildOptions(), "sm86")
    assert config.cleared == [module.BuilderFlag.TF32]


def test_float32_is_float32_in_the_real_rtx() -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    library = load_library("tensorrt-rtx")
    config = rtx.Builder(library.logger()).create_builder_config()
    assert config.get_flag(rtx.BuilderFlag.TF32)
    library.configure(config, BuildOptions(), "sm86")
    assert not config.get_flag(rtx.BuilderFlag.TF32)


@pytest.mark.parametrize("backend", TENSORRT_BACKENDS)
def test_working_memory_follows_the_shapes_where_that_can_be(backend: str) -> None:
    module = fake_tensorrt("11.0", ["SM86"])
    config = Config()
    Library(backend, module, "11.0").configure(config, BuildOptions(), "sm86")
    assert config.previews == [module.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10]
    # TensorRT before 10.10.
    config = Config()
    older = fake_tensorrt("10.3", ["SM86"], previews=["PROFILE_SHARING_0806"])
    Library(backend, older, "10.3").configure(config, BuildOptions(), "sm86")
    assert config.previews == []


def test_working_memory_follows_the_shapes_in_the_real_rtx() -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    library = load_library("tensorrt-rtx")
    config = rtx.Builder(library.logger()).create_builder_config()
    feature = rtx.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10
    config.set_preview_feature(feature, False)
    library.configure(config, BuildOptions(), "sm86")
    assert config.get_preview_feature(feature)


def test_all_options_reach_full_tensorrt() -> None:
    module = fake_tensorrt("11.0")
    library = Library("tensorrt", module, "11.0")
    library.check_options(EVERYTHING)
    config: Any = Config()
    library.configure(config, EVERYTHING, "ampere-plus")
    assert config.limits == {module.MemoryPoolType.WORKSPACE: 1 << 20}
    assert config.builder_optimization_level == 2
    assert config.hardware_compatibility_level is module.HardwareCompatibilityLevel.AMPERE_PLUS
    assert {flag.name for flag in config.flags} == {"VERSION_COMPATIBLE", "REFIT", "DISABLE_TIMING_CACHE"}
    assert not hasattr(config, "num_compute_capabilities")


@pytest.mark.parametrize(
    "options",
    [
        BuildOptions(timing_cache=True),
        BuildOptions(hardware_compatibility="ampere-plus"),
        BuildOptions(version_compatible=True),
        BuildOptions(refit=True),
    ],
)
def test_what_rtx_lacks(options: BuildOptions) -> None:
    with pytest.raises(InputError, match="tensorrt-rtx has no such option"):
        Library("tensorrt-rtx", fake_tensorrt("1.7"), "1.7").check_options(options)


def test_rtx_takes_the_others() -> None:
    Library("tensorrt-rtx", fake_tensorrt("1.7"), "1.7").check_options(BuildOptions(1 << 30, 5, False))


def test_compatibility_level_of_later_versions() -> None:
    module = fake_tensorrt("10.3", compatibility=["NONE", "AMPERE_PLUS"])
    library = Library("tensorrt", module, "10.3")
    library.check_options(BuildOptions(hardware_compatibility="ampere-plus"))
    with pytest.raises(InputError, match=r"tensorrt 10\.3 has no 'same-capability'"):
        library.check_options(BuildOptions(hardware_compatibility="same-capability"))


def test_target_of_rtx() -> None:
    module = fake_tensorrt("1.7", ["SM120", "SM75", "SM86"])
    library = Library("tensorrt-rtx", module, "1.7")
    assert library.capabilities() == ("sm75", "sm86", "sm120")
    for target, member in (("sm86", "SM86"), ("sm90", "CURRENT")):
        config: Any = Config()
        library.configure(config, BuildOptions(), target)
        assert config.num_compute_capabilities == 1
        assert config.capabilities == [module.ComputeCapability[member]]
    assert Library("tensorrt", fake_tensorrt("11.0"), "11.0").capabilities() == ()


def test_gpus_that_rtx_was_not_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library("tensorrt-rtx", fake_tensorrt("1.7.1", ["SM75", "SM86", "SM120"]), "1.7.1")
    assert library.known_capabilities == {(7, 5), (8, 6), (12, 0)}
    library.check_gpu(Gpu("NVIDIA RTX A6000", (8, 6), "13.0", 1))
    for name, capability in (("Orin", (8, 7)), ("NVIDIA H200", (9, 0)), ("NVIDIA B200", (10, 0))):
        gpu = Gpu(name, capability, "13.0", 1)
        with pytest.raises(InputError) as caught:
            library.check_gpu(gpu)
        line = str(caught.value)
        sm = f"sm{capability[0]}{capability[1]}"
        assert (
            f"1.7.1 knows sm75, sm86, sm120 only, and this GPU, {name}, is {sm}; use the backend tensorrt"
            in line
        )
        assert "\n" not in line and "build" not in line
        Library("tensorrt", fake_tensorrt("11.0"), "11.0").check_gpu(gpu)
    monkeypatch.setenv(ANY_TARGET, "1")
    library.check_gpu(gpu)


def test_logger_keeps_errors_only() -> None:
    module = fake_tensorrt("11.0")
    logger = Library("tensorrt", module, "11.0").logger()
    logger.log(module.ILogger.Severity.WARNING, "a warning")
    logger.log(module.ILogger.Severity.ERROR, "an\nerror")
    assert logger.errors == ["an error"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workspace": 0}, "workspace: 0 bytes is too little"),
        ({"optimization_level": 6}, "optimization level: 6 is unknown, expected 0 to 5"),
        ({"hardware_compatibility": "turing"}, "choose ampere-plus or same-capability"),
    ],
)
def test_options_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BuildOptions(**given)


def test_the_fake_has_only_names_of_the_real_one() -> None:
    real = pytest.importorskip("tensorrt_rtx")
    fake = fake_tensorrt("1.7", ["SM86"], device=FakeDevice())
    for name, thing in vars(fake).items():
        if isinstance(thing, type):
            names = {part for part in vars(thing) if not part.startswith("_")}
            assert names <= set(dir(getattr(real, name))), name
    config = {name for name in vars(Config) if not name.startswith("_")} - {"TIMES"}
    attributes = {"profiling_verbosity", "builder_optimization_level", "hardware_compatibility_level"}
    attributes |= {"num_compute_capabilities", "progress_monitor"}
    assert config | attributes <= set(dir(real.IBuilderConfig))


def test_the_real_rtx() -> None:
    pytest.importorskip("tensorrt_rtx")
    library = load_library("tensorrt-rtx")
    assert library is load_library("tensorrt-rtx")
    assert {"sm75", "sm86", "sm89", "sm120"} <= set(library.capabilities())
    assert {(8, 7), (9, 0), (10, 0), (11, 0)}.isdisjoint(library.known_capabilities)
    assert library.logger().errors == []
