"""The store of built engines: what fits, what does not, and plans that are not what was built."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.build import target as build_target
from sed_trt.engines.build.build import build_engines
from sed_trt.engines.device.cuda import Gpu
from sed_trt.engines.profiles import Limits
from sed_trt.engines.store import ANY_TARGET, BuiltEngines, check_runs_here, find_built, list_built, read_plan
from sed_trt.engines.targets import BuildOptions, build_command
from sed_trt.engines.trt.library import load_library
from sed_trt.errors import InputError
from sed_trt.stages import STAGE_NAMES
from sed_trt.tests.fakes.small_bundle import small_bundle
from sed_trt.tests.fakes.tensorrt import PLAN, fake_tensorrt

A6000 = Gpu("NVIDIA RTX A6000", (8, 6), "13.0", 48 << 30)
A10 = Gpu("NVIDIA A10", (8, 6), "13.0", 24 << 30)
L4 = Gpu("NVIDIA L4", (8, 9), "13.0", 24 << 30)
T4 = Gpu("Tesla T4", (7, 5), "13.0", 16 << 30)
H200 = Gpu("NVIDIA H200", (9, 0), "13.0", 141 << 30)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A small one, in a folder whose name needs quotes."""
    return small_bundle(tmp_path / "my bundle")


@pytest.fixture(autouse=True)
def libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fakes of both libraries, on a machine with an A6000."""
    monkeypatch.setattr(build_target, "find_gpu", lambda: A6000)
    use(monkeypatch, "tensorrt", "10.13.3.9")
    use(monkeypatch, "tensorrt-rtx", "1.7.1.116")
    yield
    load_library.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, backend: str, version: str) -> None:
    """Install another version of a library."""
    module = fake_tensorrt(version, ["SM75", "SM86", "SM89"] if backend == "tensorrt-rtx" else [])
    monkeypatch.setitem(sys.modules, backend.replace("-", "_"), module)
    load_library.cache_clear()


def built(
    bundle: Bundle, backend: str = "tensorrt-rtx", target: str | None = None, **more: Any
) -> BuiltEngines:
    return build_engines(bundle, backend, target, **more).engines


def edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_what_was_built_is_found(bundle: Bundle) -> None:
    engines = built(bundle, target="a6000", limits=Limits(max_categories=100, max_batch=2))
    assert find_built(bundle, "tensorrt-rtx", A6000) == engines
    assert find_built(bundle, "tensorrt-rtx", None) == engines
    assert list(engines.stages) == list(STAGE_NAMES)
    assert engines.limits == Limits(100, 2)
    assert engines.folder.parent == bundle.path / "engines"
    assert engines.folder.name.startswith("tensorrt-rtx-1.7.1.116-sm86-")
    for stage in STAGE_NAMES:
        assert read_plan(engines, stage) == PLAN
        assert engines.stages[stage].inputs == bundle.manifest.stages[stage].inputs
    assert [profile["kept0"] for profile in engines.stages["decode1"].profiles] == [
        ((1,), (16,), (32,)),
        ((33,), (64,), (100,)),
    ]


def test_newest_first(bundle: Bundle) -> None:
    first, second = built(bundle, target="portable"), built(bundle, target="sm86")
    assert list_built(bundle) == ([second, first], [])
    assert find_built(bundle, "tensorrt-rtx", A6000) == second
    again = build_engines(bundle, "tensorrt-rtx", "portable", force=True).engines
    assert find_built(bundle, "tensorrt-rtx", A6000) == again
    assert again.folder == first.folder


def test_each_gpu_finds_its_own(bundle: Bundle) -> None:
    for target in ("portable", "sm75", "sm86"):
        built(bundle, target=target)
    found = {gpu: find_built(bundle, "tensorrt-rtx", gpu).target for gpu in (A6000, L4, T4)}
    assert found == {A6000: "sm86", L4: "portable", T4: "sm75"}


@pytest.mark.parametrize("target", [None, "portable", "sm86"])
def test_no_build_helps_a_gpu_that_rtx_does_not_know(
    target: str | None, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target:
        engines = built(bundle, target=target)
    line = refusal(bundle, gpu=H200)
    assert (
        "1.7.1.116 knows sm75, sm86, sm89 only, and this GPU, NVIDIA H200, is sm90; use the backend" in line
    )
    assert "sed-trt build" not in line
    if target:
        with pytest.raises(InputError, match="knows sm75, sm86, sm89 only"):
            check_runs_here(engines, H200)
        monkeypatch.setenv(ANY_TARGET, "1")
        assert find_built(bundle, "tensorrt-rtx", H200) == engines


def refusal(bundle: Bundle, backend: str = "tensorrt-rtx", gpu: Gpu | None = A6000) -> str:
    with pytest.raises(InputError) as caught:
        find_built(bundle, backend, gpu)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("backend", "gpu", "command"),
    [
        ("tensorrt-rtx", A6000, "--backend tensorrt-rtx --target sm86`"),
        ("tensorrt-rtx", T4, "--backend tensorrt-rtx --target sm75`"),
        ("tensorrt-rtx", None, "--backend tensorrt-rtx --target portable`"),
        ("tensorrt", A6000, "--backend tensorrt`"),
        ("onnxruntime", None, "--backend onnxruntime`"),
    ],
)
def test_none_built(backend: str, gpu: Gpu | None, command: str, bundle: Bundle) -> None:
    assert refusal(bundle, backend, gpu) == (
        f"{bundle.path}: holds no engines for {backend}; run `sed-trt build '{bundle.path}' {command}"
    )


def test_unknown_backend(bundle: Bundle) -> None:
    assert "choose one of tensorrt, tensorrt-rtx, openvino, onnxruntime" in refusal(
        bundle, "onnxruntime-cuda"
    )


def test_other_gpu(bundle: Bundle) -> None:
    built(bundle, target="sm86", limits=Limits(max_categories=64))
    line = refusal(bundle, gpu=L4)
    assert "were built for sm86, but this GPU, NVIDIA L4, is sm89" in line
    assert "--target sm89 --max-categories 64`" in line


def test_the_refusal_of_another_gpu_can_be_turned_off(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = built(bundle, target="sm86")
    assert "were built for sm86" in refusal(bundle, gpu=L4)
    monkeypatch.setenv(ANY_TARGET, "1")
    assert find_built(bundle, "tensorrt-rtx", L4) == engines
    newest = built(bundle, target="sm75")
    assert find_built(bundle, "tensorrt-rtx", A6000) == newest


def test_other_version(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    built(bundle)
    use(monkeypatch, "tensorrt-rtx", "1.8.0.1")
    assert "were built by tensorrt-rtx 1.7.1.116, but 1.8.0.1 is installed; run `" in refusal(bundle)


@pytest.mark.parametrize(("installed", "runs"), [("10.14.0.1", True), ("10.12.0.36", False), ("11.0", False)])
def test_version_compatible(
    installed: str, runs: bool, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = built(bundle, "tensorrt")
    compatible = built(bundle, "tensorrt", options=BuildOptions(version_compatible=True))
    assert plain.folder != compatible.folder
    use(monkeypatch, "tensorrt", installed)
    if runs:
        assert find_built(bundle, "tensorrt", A6000) == compatible
    else:
        assert "--backend tensorrt --version-compatible`" in refusal(bundle, "tensorrt")


def test_hardware_compatible(bundle: Bundle) -> None:
    built(bundle, "tensorrt")
    line = refusal(bundle, "tensorrt", L4)
    assert "were built for sm86 on NVIDIA RTX A6000, but this GPU, NVIDIA L4, is sm89" in line
    compatible = built(bundle, "tensorrt", options=BuildOptions(hardware_compatibility="ampere-plus"))
    assert compatible.target == "ampere-plus"
    assert find_built(bundle, "tensorrt", L4) == compatible
    assert "but this GPU, Tesla T4, is sm75" in refusal(bundle, "tensorrt", T4)


def test_two_gpus_of_one_capability(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = built(bundle, "tensorrt")
    line = refusal(bundle, "tensorrt", A10)
    assert "were built for sm86 on NVIDIA RTX A6000, but this GPU, NVIDIA A10, is sm86; run `" in line
    monkeypatch.setattr(build_target, "find_gpu", lambda: A10)
    theirs = build_engines(bundle, "tensorrt")
    assert not theirs.already_built
    assert theirs.engines.folder != ours.folder
    assert find_built(bundle, "tensorrt", A10) == theirs.engines
    assert find_built(bundle, "tensorrt", A6000) == ours
    shared = built(bundle, "tensorrt", options=BuildOptions(hardware_compatibility="same-capability"))
    assert find_built(bundle, "tensorrt", A6000) == find_built(bundle, "tensorrt", A10) == shared


def test_rtx_takes_every_gpu_of_a_capability(bundle: Bundle) -> None:
    engines = built(bundle, target="sm86")
    assert find_built(bundle, "tensorrt-rtx", A6000) == find_built(bundle, "tensorrt-rtx", A10) == engines


def test_bundle_changed_after_the_build(bundle: Bundle, tmp_path: Path) -> None:
    built(bundle)
    other = small_bundle(tmp_path / "other", "fp16")
    (bundle.path / "engines").rename(other.path / "engines")
    assert "were built from other graphs than it holds now; run `" in refusal(other)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1}'])
@pytest.mark.parametrize("file", ["build.json", "decode1.json"])
def test_damaged_record(file: str, content: str, bundle: Bundle) -> None:
    folder = built(bundle).folder
    (folder / file).write_text(content)
    sets, damaged = list_built(bundle)
    assert sets == []
    assert len(damaged) == 1
    assert str(folder / file) in damaged[0]
    line = refusal(bundle)
    assert "holds no engines for tensorrt-rtx" in line
    assert str(folder / file) in line
    assert not build_engines(bundle, "tensorrt-rtx").already_built
    assert find_built(bundle, "tensorrt-rtx", A6000).folder == folder


def test_record_that_leads_elsewhere(bundle: Bundle, tmp_path: Path) -> None:
    folder = built(bundle).folder
    edit(folder / "build.json", stages={stage: f"../../{stage}.engine" for stage in STAGE_NAMES})
    assert "the file name '../../text.engine' is not plain" in refusal(bundle)


def test_unfinished_builds_are_no_engines(bundle: Bundle) -> None:
    folder = built(bundle).folder
    folder.rename(folder.with_name(".building-1"))
    (folder.parent / "a file").touch()
    assert list_built(bundle) == ([], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PLAN[:3], "was altered after the build (3 bytes, sha256 "),
        (PLAN + b"!", "was altered after the build (7 bytes, sha256 "),
        (PLAN.upper(), "was altered after the build (6 bytes, sha256 "),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_plan_that_is_not_what_was_built(content: bytes | None, message: str, bundle: Bundle) -> None:
    engines = built(bundle, target="sm86", limits=Limits(max_side=99))
    file = engines.plan_file("scout")
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_plan(engines, "scout")
    line = str(caught.value)
    assert line.startswith(f"{file}: ")
    assert message in line
    assert f"'{bundle.path}' --backend tensorrt-rtx --target sm86 --max-side 99 --force`" in line
    assert read_plan(engines, "text") == PLAN


def test_command_with_every_option() -> None:
    options = BuildOptions(1 << 20, 3, False, "same-capability", True, True)
    command = build_command(Path("b"), "tensorrt", "sm86", Limits(7, 6, 5), options)
    assert command == (
        "sed-trt build b --backend tensorrt --max-categories 7 --max-batch 6 --max-side 5 "
        "--workspace 1048576 --optimization-level 3 --no-timing-cache "
        "--hardware-compatibility same-capability "
        "--version-compatible --refit"
    )
