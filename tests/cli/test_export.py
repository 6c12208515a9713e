"""`sed-trt export` and `train` as a user meets them."""

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sed_trt.cli.export import CALIBRATION_IMAGES, calibration_images
from sed_trt.cli.main import main
from sed_trt.export import verification
from sed_trt.stages import BY_NAME
from sed_trt.tests.fakes.exports import reuse_graphs


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail with exit code 2, and return its one error line."""
    assert main([str(argument) for argument in arguments]) == 2
    errors = capsys.readouterr().err.strip()
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line.startswith("sed-trt: error:")]
    assert len(lines) == 1
    return lines[0]


def test_export_through_a_link_prints_checks_and_obeys_the_umask(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, link = tmp_path / "real", tmp_path / "link"
    bundle.mkdir()
    link.symlink_to("real")
    before = os.umask(0o027)
    try:
        assert main(["export", str(tiny_checkpoint), "-o", str(link), "--json"]) == 0
    finally:
        os.umask(before)
    checks = json.loads(capsys.readouterr().out)
    assert all(check["passed"] and check["error"] <= check["limit"] for check in checks)
    assert {check["stage"] for check in checks} == set(BY_NAME)
    assert link.is_symlink()
    assert bundle.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in bundle.iterdir()} == {0o640}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["link", "real"]


def test_export_replaces_an_old_bundle_and_prints_a_table(
    tiny_checkpoint: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reuse_graphs(monkeypatch, tiny_bundle)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in ("manifest.json", "old.onnx"):
        (bundle / name).touch()
    assert main(["export", str(tiny_checkpoint), "-o", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "decode3" in shown and "limit" in shown
    assert {path.name for path in bundle.iterdir()} == {path.name for path in tiny_bundle.iterdir()}
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["bundle"]


def test_export_over_its_limit_shows_the_table_and_leaves_no_bundle(
    tiny_checkpoint: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reuse_graphs(monkeypatch, tiny_bundle)
    monkeypatch.setattr(verification, "RELATIVE_LIMITS", {"fp32": 1e-12})
    assert main(["export", str(tiny_checkpoint), "-o", str(tmp_path / "bundle")]) == 2
    captured = capsys.readouterr()
    assert "over" in captured.out
    assert re.search(r"differ from PyTorch: .*image/embed by .* \(limit ", captured.err)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_export_of_a_missing_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failed(capsys, "export", tmp_path / "none.pth", "-o", tmp_path / "bundle")
    assert "none.pth: no such file" in message


def test_export_with_an_unknown_preset(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = failed(capsys, "export", tiny_checkpoint, "-o", tmp_path / "bundle", "--preset", "sed-huge")
    assert "sed-b, sed-l, sed-tiny" in message


def test_export_into_an_unwritable_parent(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.mkdir

    def mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        # Root may write everywhere, so the refusal is played.
        if self.parent == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        real(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    message = failed(capsys, "export", tiny_checkpoint, "-o", tmp_path / "bundle")
    assert "bundle: cannot be written (Permission denied)" in message


def test_train_writes_a_checkpoint_that_evaluates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "runs" / "tiny"
    arguments = ["--text-steps", "0", "--clip-steps", "0", "--steps", "1", "--batch", "1", "--scenes", "1"]
    assert main(["train", "-o", str(output), *arguments]) == 0
    assert "mIoU in percent" in capsys.readouterr().out
    assert (output / "model.safetensors").stat().st_size < 24_000_000


def test_train_with_an_unknown_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failed(capsys, "train", "--preset", "sed-x", "-o", tmp_path / "x")
    assert "sed-b, sed-l, sed-tiny" in message
    assert not (tmp_path / "x").exists()


def test_calibration_images_are_evenly_spread(tmp_path: Path) -> None:
    for number in range(31):
        # The images tell by their grey which one they are.
        Image.new("RGB", (8, 8), (number * 8,) * 3).save(tmp_path / f"{number:02}.png")
    images = calibration_images(tmp_path)
    greys = [int(image[0, 0, 0]) // 8 for image in images]
    assert len(greys) == CALIBRATION_IMAGES
    assert greys == sorted(set(greys)) and greys[0] == 0 and greys[-1] >= 29


@pytest.mark.parametrize(
    ("folder", "says"),
    [("missing", "no such folder"), ("file", "is a file"), ("empty", "without images"), ("broken", "broken")],
)
def test_bad_calibration_folders(
    folder: str, says: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "image.png").write_text("no image")
    options = ["--precision", "int8", "--calibration", tmp_path / folder]
    assert says in failed(capsys, "export", tiny_checkpoint, "-o", tmp_path / "bundle", *options)
    assert not (tmp_path / "bundle").exists()


def test_calibration_is_for_8_bits(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    line = failed(capsys, "export", tiny_checkpoint, "-o", tmp_path / "bundle", "--calibration", tmp_path)
    assert "calibration: fp32 has no ranges to calibrate" in line
