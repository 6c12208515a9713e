"""`sed-trt export`, `evaluate` and `train` as a user meets them."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from sed_trt.benchmarks.scene_evaluation import SceneScores
from sed_trt.cli.evaluate import show
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
    monkeypatch.setattr(verification, "RELATIVE_LIMIT", 1e-12)
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


def test_evaluate_into_a_bad_folder_fails_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The checkpoint, which is missing too, would be complained of later.
    evaluation = ("evaluate", tmp_path / "none.pth", "--output")
    assert "absent: cannot be written" in failed(capsys, *evaluation, tmp_path / "absent" / "results.json")
    assert "is a folder; name a file" in failed(capsys, *evaluation, tmp_path)


def test_table_of_results_fits_into_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show([SceneScores(200, 4096, "min-pixels:8:20", 61.24, 41.5, 58.3, 90.1, (847.0, 312.4, 25.6))])
    title, headers, _, row = capsys.readouterr().out.splitlines()
    assert title.strip() == "mIoU in percent"
    assert [word.strip() for word in headers.split("┃")] == [
        "names", "rejection", "seen", "held-out", "all", "pixels", "alive after"
    ]  # fmt: skip
    assert [word.strip() for word in row.split("│")] == [
        "4096", "min-pixels:8:20", "61.2", "41.5", "58.3", "90.1", "847 / 312 / 26"
    ]  # fmt: skip


def test_evaluate_gives_the_same_on_both_kinds(
    tiny_checkpoint: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = []
    for path in (tiny_checkpoint, tiny_bundle):
        arguments = ["evaluate", str(path), "--scenes", "3", "--rejection", "topk:8", "--json"]
        assert main([*arguments, "--output", str(tmp_path / "results.json")]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed == json.loads((tmp_path / "results.json").read_text())
        results.append(printed["results"][0])
    torch_row, bundle_row = results
    assert torch_row["miou"] == pytest.approx(bundle_row["miou"], abs=0.2)
    assert torch_row["kept"] == pytest.approx(bundle_row["kept"], abs=1)


def test_evaluate_refuses_what_it_cannot_do(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "181" in failed(capsys, "evaluate", tiny_checkpoint, "--vocabulary-size", 20)
    assert "bundle only" in failed(capsys, "evaluate", tiny_checkpoint, "--scenes", 1, "-r", "budget:9")
    assert "none.pth" in failed(capsys, "evaluate", tmp_path / "none.pth")


def test_train_writes_a_checkpoint_that_evaluates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "runs" / "tiny.safetensors"
    arguments = ["--text-steps", "0", "--clip-steps", "0", "--steps", "1", "--batch", "1", "--scenes", "1"]
    assert main(["train", "-o", str(output), *arguments]) == 0
    assert "mIoU in percent" in capsys.readouterr().out
    assert output.stat().st_size < 24_000_000


def test_train_with_an_unknown_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failed(capsys, "train", "--preset", "sed-x", "-o", tmp_path / "x.safetensors")
    assert "sed-b, sed-l, sed-tiny" in message
    assert not (tmp_path / "x.log.jsonl").exists()
