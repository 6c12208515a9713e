"""A build as a whole: found again, replaced, refused, interrupted; whole or not at all."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.build import target as build_target
from sed_trt.engines.build.build import build_engines
from sed_trt.engines.device.cuda import Gpu
from sed_trt.engines.profiles import Limits
from sed_trt.engines.store import find_built, read_plan
from sed_trt.engines.targets import BuildOptions
from sed_trt.engines.trt.library import load_library
from sed_trt.errors import InputError
from sed_trt.stages import STAGE_NAMES
from sed_trt.tests.fakes.small_bundle import small_bundle
from sed_trt.tests.fakes.tensorrt import PLAN, Config, install_tensorrt

A6000 = Gpu("NVIDIA RTX A6000", (8, 6), "13.0", 48 << 30)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A small one."""
    return small_bundle(tmp_path / "bundle")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Installs a fake of full TensorRT, as `fake_tensorrt` makes it, on a machine with an A6000."""
    monkeypatch.setattr(build_target, "find_gpu", lambda: A6000)
    yield partial(install_tensorrt, monkeypatch)
    load_library.cache_clear()


def contents(folder: Path) -> set[str]:
    """Names in the store, but for the lock, which stays."""
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_second_build_finds_the_first(bundle: Bundle, install: Callable[..., Any]) -> None:
    module = install()
    first = build_engines(bundle, "tensorrt")
    assert not first.already_built
    assert first.engines.gpu == A6000.name
    assert len(module.configs) == len(STAGE_NAMES)
    second = build_engines(bundle, "tensorrt", "a6000")
    assert second.already_built
    assert second.engines == first.engines
    assert len(module.configs) == len(STAGE_NAMES)


def test_what_a_build_is_told_apart_by(bundle: Bundle, install: Callable[..., Any]) -> None:
    install()
    ways: list[dict[str, Any]] = [
        {},
        {"limits": Limits(max_categories=100)},
        {"limits": Limits(max_batch=2)},
        {"options": BuildOptions(optimization_level=1)},
        {"options": BuildOptions(hardware_compatibility="ampere-plus")},
    ]
    folders = {build_engines(bundle, "tensorrt", **way).engines.folder for way in ways}
    install("10.3.0")
    folders.add(build_engines(bundle, "tensorrt").engines.folder)
    assert len(folders) == len(ways) + 1


def test_network_is_strongly_typed_and_profiles_are_in_order(
    bundle: Bundle, install: Callable[..., Any]
) -> None:
    flags = []
    module = install()
    create = module.Builder.create_network

    def noted(builder: Any, given: int) -> Any:
        flags.append(given)
        return create(builder, given)

    module.Builder.create_network = noted
    engines = build_engines(bundle, "tensorrt").engines
    assert flags == [1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)] * len(STAGE_NAMES)
    given = [[profile.shapes for profile in config.profiles] for config in module.configs]
    assert given == [list(stage.profiles) for stage in engines.stages.values()]


def test_force_builds_again(bundle: Bundle, install: Callable[..., Any]) -> None:
    first = build_engines(bundle, "tensorrt" if install() else None).engines
    (first.folder / "left by a runtime").touch()
    again = build_engines(bundle, "tensorrt", force=True)
    assert not again.already_built
    assert again.engines.folder == first.folder
    assert again.engines.built > first.built
    assert "left by a runtime" not in contents(first.folder)


def test_truncated_plan_is_built_again(bundle: Bundle, install: Callable[..., Any]) -> None:
    install()
    engines = build_engines(bundle, "tensorrt").engines
    engines.plan_file("image").write_bytes(PLAN[:2])
    assert not build_engines(bundle, "tensorrt").already_built
    assert read_plan(find_built(bundle, "tensorrt", A6000), "image") == PLAN


def test_leftovers_of_a_killed_build_go(bundle: Bundle, install: Callable[..., Any]) -> None:
    install()
    left = bundle.path / "engines" / ".building-0"
    left.mkdir(parents=True)
    (left / "text.engine").touch()
    folder = build_engines(bundle, "tensorrt").engines.folder
    assert contents(bundle.path / "engines") == {folder.name, "tensorrt-11.4.0.106-sm86.timing"}


def test_every_parser_error_is_named(bundle: Bundle, install: Callable[..., Any]) -> None:
    install(errors=["no\nsuch op", "bad shape"])
    with pytest.raises(InputError) as caught:
        build_engines(bundle, "tensorrt")
    assert (
        f"{bundle.path / 'text.onnx'}: tensorrt 11.4.0.106 for sm86: the graph cannot be parsed "
        "(node 'node0' (NonZero): no such op; node 'node1' (NonZero): bad shape); "
    ) in str(caught.value)
    assert contents(bundle.path / "engines") == set()


def test_failed_build_says_why(bundle: Bundle, install: Callable[..., Any]) -> None:
    install(build=lambda config: None)
    with pytest.raises(
        InputError, match=r"text\.onnx: tensorrt .* the build failed \(no tactic\); try another"
    ):
        build_engines(bundle, "tensorrt")
    with pytest.raises(InputError, match=r"the build failed \(no tactic\); raise the workspace"):
        build_engines(bundle, "tensorrt", options=BuildOptions(workspace=1))
    assert contents(bundle.path / "engines") == set()


def test_builder_that_does_not_start(bundle: Bundle, install: Callable[..., Any]) -> None:
    module = install()

    def start(logger: Any) -> None:
        logger.log(module.ILogger.Severity.ERROR, "no CUDA")
        raise TypeError("factory function returned nullptr")

    module.Builder = start
    with pytest.raises(InputError, match=r"the builder does not start \(no CUDA\)"):
        build_engines(bundle, "tensorrt")


def test_altered_graph_is_not_built(bundle: Bundle, install: Callable[..., Any]) -> None:
    install()
    (bundle.path / "decode2.onnx").write_text("altered")
    with pytest.raises(InputError, match=r"decode2\.onnx: was altered after the export"):
        build_engines(bundle, "tensorrt")
    assert "tensorrt-11.4.0.106-sm86.timing" in contents(bundle.path / "engines")
    assert not any((bundle.path / "engines").glob("*/"))


def test_full_disk(bundle: Bundle, install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    kept = build_engines(bundle, "tensorrt").engines
    write = Path.write_bytes

    def write_until_full(path: Path, data: Any) -> int:
        if path.name == "scout.engine":
            write(path, data[:1])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    with pytest.raises(
        InputError, match=r"engines cannot be written \(No space left on device\), nothing is left"
    ):
        build_engines(bundle, "tensorrt", force=True)
    assert not list((bundle.path / "engines").glob(".building-*"))
    assert find_built(bundle, "tensorrt", A6000) == kept


def test_store_that_cannot_be_made(bundle: Bundle, install: Callable[..., Any]) -> None:
    install()
    (bundle.path / "engines").touch()
    with pytest.raises(InputError, match=r"engines: engines cannot be written \(File exists\)"):
        build_engines(bundle, "tensorrt")


def test_interrupt_waits_for_the_library_and_leaves_nothing(
    bundle: Bundle, install: Callable[..., Any]
) -> None:
    ended = []

    def slow(config: Any) -> bytes | None:
        monitor = config.progress_monitor
        monitor.phase_start("measuring", None, 10_000)
        for step in range(10_000):
            if not monitor.step_complete("measuring", step):
                ended.append(step)
                return None
            time.sleep(0.01)
        return PLAN

    def interrupt(stage: str, what: str, fraction: float) -> None:
        if what == "measuring":
            assert threading.current_thread() is threading.main_thread()
            raise KeyboardInterrupt

    install(build=slow)
    with pytest.raises(KeyboardInterrupt):
        build_engines(bundle, "tensorrt", progress=interrupt)
    assert len(ended) == 1
    assert contents(bundle.path / "engines") == set()


class Interrupting:
    """Interrupts the process in its finalizer, where Python drops the exception."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("last", ["text", "label"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_leaves_nothing(
    last: str, bundle: Bundle, install: Callable[..., Any]
) -> None:
    reported: list[str] = []

    def progress(stage: str, step: str, fraction: float) -> None:
        reported.append(stage)
        if (stage, step) == (last, "built"):
            Interrupting()

    install()
    # A program that is started in the background, as these tests may be, ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            build_engines(bundle, "tensorrt", progress=progress)
    finally:
        signal.signal(signal.SIGINT, before)
    assert reported[-1] == last
    assert not list((bundle.path / "engines").glob("*/"))


def test_second_of_two_builds_waits_and_finds(bundle: Bundle, install: Callable[..., Any]) -> None:
    going, waiting = threading.Event(), threading.Event()

    def held(config: Any) -> bytes | None:
        going.set()
        assert waiting.wait(30)
        return PLAN

    module = install(build=held)
    outcomes = []

    def second() -> None:
        assert going.wait(30)
        done = build_engines(bundle, "tensorrt", progress=lambda stage, what, part: note(what))
        outcomes.append(done.already_built)

    def note(what: str) -> None:
        if "waiting for another build" in what:
            waiting.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not build_engines(bundle, "tensorrt").already_built
    thread.join()
    assert outcomes == [True]
    assert len(module.configs) == len(STAGE_NAMES)


def test_progress_rises_in_every_stage(bundle: Bundle, install: Callable[..., Any]) -> None:
    install()
    reports: list[tuple[str, float]] = []
    build_engines(bundle, "tensorrt", progress=lambda stage, what, part: reports.append((stage, part)))
    assert list(dict.fromkeys(stage for stage, _ in reports)) == list(STAGE_NAMES)
    for stage in STAGE_NAMES:
        parts = [part for name, part in reports if name == stage]
        assert parts[0] == 0.0
        assert parts[-1] == 1.0
        assert parts == sorted(parts)


def test_unknown_backend(bundle: Bundle) -> None:
    with pytest.raises(
        InputError, match="'trt' builds no engines; choose one of tensorrt, tensorrt-rtx, openvino"
    ):
        build_engines(bundle, "trt")


def test_kernel_times_go_from_stage_to_stage_and_build_to_build(
    bundle: Bundle, install: Callable[..., Any]
) -> None:
    module = install()
    build_engines(bundle, "tensorrt")
    assert [config.known_times for config in module.configs] == [
        [b""],
        *[[Config.TIMES]] * (len(STAGE_NAMES) - 1),
    ]
    file = bundle.path / "engines" / "tensorrt-11.4.0.106-sm86.timing"
    assert file.read_bytes() == Config.TIMES
    module.configs.clear()
    build_engines(bundle, "tensorrt", force=True)
    assert module.configs[0].known_times == [Config.TIMES]


@pytest.mark.parametrize(("times", "tried"), [(b"damaged", []), (b"of another GPU", [b"of another GPU"])])
def test_kernel_times_that_are_refused(
    times: bytes, tried: list[bytes], bundle: Bundle, install: Callable[..., Any]
) -> None:
    module = install()
    store = bundle.path / "engines"
    store.mkdir()
    (store / "tensorrt-11.4.0.106-sm86.timing").write_bytes(times)
    build_engines(bundle, "tensorrt")
    assert module.configs[0].known_times == [*tried, b""]


def test_no_kernel_times(bundle: Bundle, install: Callable[..., Any]) -> None:
    module = install()
    engines = build_engines(bundle, "tensorrt", options=BuildOptions(timing_cache=False)).engines
    names = {path.name for path in (bundle.path / "engines").iterdir()}
    assert names == {".lock", engines.folder.name}
    assert not any(config.known_times for config in module.configs)
