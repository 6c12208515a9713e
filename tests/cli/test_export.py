"""`sed-trt export` and `train` as a user meets them."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from sed_trt.cli.main import main
from sed_trt.export import verification


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail with exit code 2, and return its one error line."""
    assert main([str(argument) for argument in arguments]) == 2
    errors = capsys.readouterr().err.strip()
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line.startswith("sed-trt: error:")]
    assert len(lines) == 1
    return lines[0]


def test_export_prints_a_row_per_output(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tiny_checkpoint), "-o", str(tmp_path / "bundle"), "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)
    assert all(check["passed"] and check["error"] <= check["limit"] for check in checks)
    assert len({check["stage"] for check in checks}) == 8
    assert main(["export", str(tiny_checkpoint), "-o", str(tmp_path / "bundle")]) == 0
    shown = capsys.readouterr().out
    assert "decode3" in shown and "limit" in shown
    # The second export replaced the first, and nothing of either is left beside it.
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["bundle"]


def test_export_over_its_limit_shows_the_table_and_fails(
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verification, "RELATIVE_LIMITS", {"fp32": 1e-12})
    assert main(["export", str(tiny_checkpoint), "-o", str(tmp_path / "bundle")]) == 2
    captured = capsys.readouterr()
    assert "over" in captured.out
    assert "differ from PyTorch" in captured.err
    assert not (tmp_path / "bundle").exists()


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
