"""`sed-trt build`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sed_trt.bundle import STAGES
from sed_trt.cli.main import main
from sed_trt.tests.paths import ROOT


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """sed-tiny, to write engines into."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def test_table_and_folder(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(bundle), "--backend", "onnxruntime"]) == 0
    shown = capsys.readouterr().out
    assert all(stage in shown for stage in STAGES)
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
            "backend: 'trt' builds no engines; choose one of tensorrt, tensorrt-rtx, onnxruntime",
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


def test_interrupt_leaves_nothing(bundle: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    code = "import sys; from sed_trt.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "build", str(bundle), "--backend", "tensorrt-rtx"],
        cwd=ROOT,
        env=dict(os.environ),
        stderr=subprocess.PIPE,
        text=True,
    )
    store = bundle / "engines"
    try:
        while not list(store.glob(".building-*/text.json")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert errors == "sed-trt: error: interrupted\n"
    assert {path.name for path in store.iterdir()} == {".lock"}
