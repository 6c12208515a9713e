"""`sed-trt build`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sed_trt.cli.main import main
from sed_trt.stages import BY_NAME, STAGE_NAMES
from sed_trt.tests.paths import ROOT


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """sed-tiny, to write engines into."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def test_table_and_folder(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(bundle), "--backend", "onnxruntime"]) == 0
    shown = capsys.readouterr().out
    assert all((stage in shown) is not BY_NAME[stage].device_only for stage in STAGE_NAMES)
    (folder,) = (bundle / "engines").glob("onnxruntime-*")
    assert "built by onnxruntime" in shown
    assert shown.rstrip().endswith(f"for cpu: {folder}")
    assert main(["build", str(bundle), "--backend", "onnxruntime"]) == 0
    assert "already built by onnxruntime" in capsys.readouterr().out


def test_json_of_rtx(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx")
    arguments = [
        str(bundle),
        "--backend",
        "tensorrt-rtx",
        "--target",
        "a6000",
        "--max-categories",
        "40",
        "--json",
    ]
    assert main(["build", *arguments]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["already_built"] is False
    assert (content["backend"], content["target"]) == ("tensorrt-rtx", "sm86")
    assert content["limits"] == {"max_categories": 40, "max_batch": 8, "max_side": 4096}
    scout = content["stages"]["scout"]
    assert [profile["text"][2][0] for profile in scout["profiles"]] == [32, 40]
    assert scout["bytes"] == Path(scout["file"]).stat().st_size
    assert scout["precisions"]["DECONVOLUTION"]["FLOAT"] > 0
    assert main(["build", *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == {**content, "already_built": True}
    assert main(["build", *arguments, "--force"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["already_built"] is False
    assert again["built"] > content["built"]


def test_default_backend_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(bundle)]) == 0
    assert "(the first that works here)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--backend", "trt"],
            "backend: 'trt' builds no engines; choose one of tensorrt, tensorrt-rtx, openvino, onnxruntime",
        ),
        (["--backend", "onnxruntime", "--target", "a6000"], "target: onnxruntime builds for cpu only"),
        (
            ["--backend", "onnxruntime", "--workspace", "9"],
            "option workspace: onnxruntime has no such option",
        ),
        (
            ["--backend", "onnxruntime", "--max-batch", "4"],
            "option max batch: onnxruntime has no such option; leave it out",
        ),
        (["--max-categories", "0"], "max categories: 0 is too few"),
        (["--optimization-level", "9"], "optimization level: 9 is unknown"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(bundle), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"sed-trt: error: {message}")
    assert captured.err.count("\n") == 1
    assert not (bundle / "engines").exists()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "a7000",
            "target: 'a7000' is unknown; choose portable, current, cpu, a compute capability (sm75, sm80",
        ),
        ("h200", "cannot name sm90; it knows portable, sm75, "),
        ("cpu", "target: tensorrt-rtx builds for NVIDIA GPUs, not for the CPU"),
    ],
)
def test_bad_targets(target: str, message: str, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert main(["build", str(bundle), "--backend", "tensorrt-rtx", "--target", target]) == 2
    assert message in capsys.readouterr().err


def test_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(tmp_path / "absent")]) == 2
    assert "no such bundle folder" in capsys.readouterr().err


# The command line, interrupted while a library works on the second stage.
INTERRUPTED = """
import os, signal, sys
from sed_trt.cli.main import main
from sed_trt.engines.build import build, tensorrt

def interrupting(function):
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return function(*arguments)

    return call

build.open_session = interrupting(build.open_session)
tensorrt.summarize = interrupting(tensorrt.summarize)
# A program that is started in the background, as these tests may be, ignores SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt-rtx"])
def test_interrupt_leaves_nothing(backend: str, bundle: Path) -> None:
    if backend == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "build", str(bundle), "--backend", backend],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert (done.stdout, done.stderr) == ("", "sed-trt: error: interrupted\n")
    assert {path.name for path in (bundle / "engines").iterdir()} == {".lock"}


@pytest.mark.parametrize("command", ["build", "inspect", "doctor"])
def test_path_with_a_null_byte(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "bundle\0"]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("sed-trt: error: ")
    assert captured.count("\n") == 1
