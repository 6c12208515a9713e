"""`sed-trt evaluate` as a user meets it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from sed_trt.benchmarks.precision.layerwise import layer_errors
from sed_trt.cli.main import main
from sed_trt.cli.tables import show_evaluation
from sed_trt.export.precision import ISLANDS
from sed_trt.model import SED
from sed_trt.tests.paths import ROOT
from sed_trt.train.scenes import VOCABULARY

SCORES = {
    "scenes": 200,
    "categories": 4096,
    "rejection": "min-pixels:8:20",
    "miou_seen": 61.24,
    "miou_held_out": 41.5,
    "miou": 58.3,
    "pixel_accuracy": 90.1,
    "kept": (847.0, 312.4, 25.6),
}


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr of a command that exits with 2."""
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


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
    show_evaluation("scores", {"results": [SCORES]})
    title, headers, _, row = capsys.readouterr().out.splitlines()
    assert title.strip() == "mIoU in percent"
    assert [word.strip() for word in headers.split("┃")] == [
        "names", "rejection", "seen", "held-out", "all", "pixels", "alive after"
    ]  # fmt: skip
    assert [word.strip() for word in row.split("│")] == [
        "4096", "min-pixels:8:20", "61.2", "41.5", "58.3", "90.1", "847→312→26"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the embeddings of the scenes' names, which are the same in every test."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cached_names(private_cache: None, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embed the scenes' names once for all tests of this file."""
    monkeypatch.setenv("SED_TRT_CACHE", str(shared_cache))


def test_evaluate_gives_the_same_on_both_kinds(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(tiny_bundle), "--scenes", "3", "-r", "topk:8", "--json"]
    output = tmp_path / "results.json"
    assert main([*arguments, "--against", str(tiny_checkpoint), "--output", str(output)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads(output.read_text())
    assert content["kind"] == "parity"
    assert content["against"]["runs_on"].startswith("PyTorch")
    assert content["stages"] is None
    (row,) = content["results"]
    assert row["agreement"] > 99.9
    assert row["source"]["miou"] == pytest.approx(row["against"]["miou"], abs=0.05)
    assert row["source"]["kept"] == pytest.approx(row["against"]["kept"], abs=1)
    assert main(arguments) == 0
    alone = json.loads(capsys.readouterr().out)
    assert (alone["kind"], alone["results"]) == ("scores", [row["source"]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tiny_checkpoint", "tiny_bundle"])
def test_evaluate_gives_the_readme_s_figures(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    published = json.loads((ROOT / "benchmarks" / "results" / "sed-tiny.json").read_text())
    expected = [row for row in published["results"] if row["categories"] == 181]
    scenes = expected[0]["scenes"]
    path = request.getfixturevalue(kind)
    assert main(["evaluate", str(path), "--scenes", str(scenes), "--json"]) == 0
    for row, known in zip(json.loads(capsys.readouterr().out)["results"], expected, strict=True):
        assert (row["rejection"], row["scenes"]) == (known["rejection"], known["scenes"])
        for key in ("miou", "miou_seen", "miou_held_out", "pixel_accuracy"):
            assert row[key] == pytest.approx(known[key], abs=0.05), key


def test_evaluate_refuses_what_it_cannot_do(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "181" in failed(capsys, "evaluate", tiny_checkpoint, "--vocabulary-size", 20)
    assert "bundle only" in failed(capsys, "evaluate", tiny_checkpoint, "--scenes", 1, "-r", "budget:9")
    assert "none.pth" in failed(capsys, "evaluate", tmp_path / "none.pth")


def test_fp16_is_as_good_as_fp32(
    tiny_bundle: Path, tiny_bundle_fp16: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(tiny_bundle_fp16), "--against", str(tiny_bundle), "--scenes", "15", "--json"]
    assert main([*arguments, "--max-drop", "0.1"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["source"]["precision"], content["against"]["precision"]) == ("fp16", "fp32")
    assert [row["source"]["rejection"] for row in content["results"]] == ["topk:8", "none"]
    for row in content["results"]:
        assert row["against"]["miou"] > 10
        assert abs(row["drop"]) <= 0.1
        assert row["agreement"] >= 99.5
    outputs = {(error["stage"], error["output"]) for error in content["stages"]["errors"]}
    assert {("image", "embed"), ("decode2", "votes2"), ("decode3", "logits"), ("label", "labels")} <= outputs
    for error in content["stages"]["errors"]:
        assert (
            error["mean_error"] <= error["max_error"] < 0.02 * max(1.0, error["peak"])
            or "labels" in error["output"]
        )


def test_bf16_is_close_to_fp32(
    tiny_bundle: Path, tiny_bundle_bf16: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "evaluate",
        str(tiny_bundle_bf16),
        "--against",
        str(tiny_bundle),
        "--scenes",
        "5",
        "-r",
        "topk:8",
    ]
    assert main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["source"]["runs_on"] == "onnxruntime, every operator rounded"
    (row,) = content["results"]
    # Rounding by 2^-8 shows; where nothing differs, nothing was rounded.
    assert 98.5 <= row["agreement"] < 100


def test_a_drop_over_the_limit_sets_the_exit_code(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(tiny_bundle), "--against", str(tiny_bundle), "--scenes", "1", "-r", "topk:8"]
    assert main([*arguments, "--max-drop", "-1"]) == 1
    captured = capsys.readouterr()
    assert "agree" in captured.out
    assert "its mIoU is 0.00 points below that of" in captured.err


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_layerwise_names_tensors_and_islands(
    tiny_checkpoint: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if precision == "fp16":
        assert main(["evaluate", str(tiny_checkpoint), "--layerwise", precision, "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        tensors, islands = content["tensors"], content["islands"]
    else:
        # Fewer names take a fraction of the time.
        model = SED.from_checkpoint(tiny_checkpoint)
        errors, worths = layer_errors(model, precision, VOCABULARY[:24], lambda done, total: None)
        tensors, islands = [asdict(error) for error in errors], [asdict(worth) for worth in worths]
    relative = [tensor["relative_error"] for tensor in tensors]
    assert relative == sorted(relative, reverse=True)
    unit = {"fp16": 2**-11, "bf16": 2**-8}[precision]
    assert unit / 2 < relative[0] < 20 * unit
    assert [worth["island"] for worth in islands] == [island.name for island in ISLANDS]
    by_name = {worth["island"]: worth for worth in islands}
    for name in ("cosine", "attention sums", "heads"):
        assert by_name[name]["error_without"] > by_name[name]["error_with"]
    # The squares of one map do not fit into FP16.
    assert by_name["group norm"]["largest_sum"] > 65504


def test_parity_fits_into_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    side = {"name": "bundle", "precision": "fp16", "runs_on": "onnxruntime"}
    error = {"stage": "decode3", "output": "guidance1", "max_error": 0.012, "mean_error": 1e-5, "peak": 72.0}
    content = {
        "source": side,
        "against": side,
        "results": [{"source": SCORES, "against": SCORES, "drop": -0.014, "agreement": 99.987}],
        "stages": {"scenes": 5, "errors": [error]},
    }
    show_evaluation("parity", content)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "bundle: fp16 on onnxruntime"
    assert any("-0.01" in line and "99.99" in line and "847→312→26" in line for line in lines)
    assert any("decode3" in line and "0.012" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "ade151"], "data: 'ade151' is neither a data set nor a folder; choose one of coco-stuff"),
        (["--max-drop", "0.1"], "--max-drop: compares with another one"),
        (["--layerwise", "fp16", "--against", "x"], "--layerwise: compares a checkpoint with itself"),
        (["--layerwise", "fp8"], "--layerwise: 'fp8' is unknown; choose fp16 or bf16"),
    ],
)
def test_arguments_that_contradict(
    arguments: list[str], message: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failed(capsys, "evaluate", tiny_checkpoint, *arguments)
