"""Measured kernel times, kept from one build to the next."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.build import target as build_target
from sed_trt.engines.build.build import build_engines
from sed_trt.engines.device.cuda import Gpu
from sed_trt.engines.targets import BuildOptions
from sed_trt.engines.trt.library import load_library
from sed_trt.tests.fakes.small_bundle import small_bundle
from sed_trt.tests.fakes.tensorrt import Config, install_tensorrt


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A small one."""
    return small_bundle(tmp_path / "bundle")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A fake of full TensorRT, on a machine with an A6000."""
    gpu = Gpu("NVIDIA RTX A6000", (8, 6), "13.0", 48 << 30)
    monkeypatch.setattr(build_target, "find_gpu", lambda: gpu)
    yield install_tensorrt(monkeypatch)
    load_library.cache_clear()


def test_kernel_times_go_from_stage_to_stage_and_build_to_build(bundle: Bundle, module: Any) -> None:
    build_engines(bundle, "tensorrt")
    assert [config.known_times for config in module.configs] == [[b""], *[[Config.TIMES]] * 7]
    file = bundle.path / "engines" / "tensorrt-11.4.0.106-sm86.timing"
    assert file.read_bytes() == Config.TIMES
    module.configs.clear()
    build_engines(bundle, "tensorrt", force=True)
    assert module.configs[0].known_times == [Config.TIMES]


@pytest.mark.parametrize(("times", "tried"), [(b"damaged", []), (b"of another GPU", [b"of another GPU"])])
def test_kernel_times_that_are_refused(times: bytes, tried: list[bytes], bundle: Bundle, module: Any) -> None:
    store = bundle.path / "engines"
    store.mkdir()
    (store / "tensorrt-11.4.0.106-sm86.timing").write_bytes(times)
    build_engines(bundle, "tensorrt")
    assert module.configs[0].known_times == [*tried, b""]


def test_no_kernel_times(bundle: Bundle, module: Any) -> None:
    engines = build_engines(bundle, "tensorrt", options=BuildOptions(timing_cache=False)).engines
    names = {path.name for path in (bundle.path / "engines").iterdir()}
    assert names == {".lock", engines.folder.name}
    assert not any(config.known_times for config in module.configs)
