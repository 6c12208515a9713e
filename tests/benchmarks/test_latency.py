"""The latency benchmark: same kept sets on all sides, labels compared, failures in their rows."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sed_trt.benchmarks.results_file import CpuTimes, other_load_since
from sed_trt.benchmarks.speed import memory as latency_memory
from sed_trt.benchmarks.speed.candidates import (
    BASELINE,
    OURS,
    Candidate,
    Forced,
    KeptSets,
    Outcome,
    Recorder,
    Replay,
    Run,
    Subject,
    ours,
    random_text,
)
from sed_trt.benchmarks.speed.latency import Plan
from sed_trt.benchmarks.speed.memory import measure_alone
from sed_trt.benchmarks.speed.opening import open_candidate
from sed_trt.benchmarks.speed.rounds import (
    Case,
    Comparison,
    alternate,
    compare,
    percentiles,
    ratios,
    scene_images,
)
from sed_trt.cli.main import main
from sed_trt.runtime import Segmenter, TopK, Vocabulary
from sed_trt.train.scenes import VOCABULARY

COMMON = ["--repeats", "2", "--pictures", "2", "--stream", "4"]


def quiet(_what: str, _done: int, _total: int) -> None:
    """No progress."""


@pytest.fixture
def one_thread() -> Iterator[list[str]]:
    """Options for one thread: those of PyTorch wait for each other, long if other tests have the cores."""
    threads = torch.get_num_threads()
    yield ["--threads", "1"]
    torch.set_num_threads(threads)


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The JSON of `sed-trt bench latency`."""
    assert main(["bench", "latency", *arguments, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_forced_keeps_the_first() -> None:
    votes = np.zeros((8, 5), dtype=np.int32)
    assert Forced(3).keep(votes).tolist() == [0, 1, 2]
    assert Forced(9).keep(votes).tolist() == [0, 1, 2, 3, 4]
    assert [len(kept) for kept in Forced(3).sets(5)] == [3, 3, 3]


def test_what_was_recorded_is_replayed() -> None:
    tables = [np.random.default_rng(seed).integers(0, 2, (8, 9)) for seed in range(3)]
    recorder = Recorder(TopK(1))
    kept = [recorder.keep(votes) for votes in tables]
    replay = Replay(recorder.sets)
    assert all(np.array_equal(replay.keep(votes), each) for votes, each in zip(tables, kept, strict=True))


def test_rows_without_rejection_end_at_the_largest_vocabulary_asked_for() -> None:
    plan = Plan(sizes=(20, 150, 847), kept=("32", "all"), against=(), rounds=1, all_up_to=150)
    assert [plan.kept_of(size) for size in plan.sizes] == [["all"], ["32", "all"], ["32"]]
    assert replace(plan, all_up_to=None).kept_of(847) == ["32", "all"]


def test_ratios_are_those_of_each_round() -> None:
    found = ratios([2.0, 30.0, 8.0], [1.0, 10.0, 2.0])
    assert found == {"of_medians": 4.0, "of_minima": 2.0, "q1": 2.5, "median": 3.0, "q3": 3.5}
    assert percentiles([1.0, 2.0, 3.0])["p50_ms"] == 2.0


def test_the_load_of_other_processes_leaves_out_our_own() -> None:
    start = CpuTimes(wall=10.0, busy=50.0, own=8.0)
    assert start.other_load(CpuTimes(wall=14.0, busy=57.0, own=9.0)) == 1.5
    # Ticks of the clock may show more of our own time than of all.
    assert start.other_load(CpuTimes(wall=14.0, busy=51.0, own=9.1)) == 0
    assert other_load_since(None) is None
    now = CpuTimes.now()
    if now is not None:
        assert now.busy > now.own > 0
        load = other_load_since(now)
        assert load is not None and load >= 0


def test_everything_agrees_and_has_its_stages(
    tiny_bundle: Path, tiny_checkpoint: Path, one_thread: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lists = ["--vocabulary-size", "20,40", "--kept", "10,30,all,real", "--against", "published,monolithic"]
    content = bench(
        capsys,
        *(str(tiny_bundle), "--checkpoint", str(tiny_checkpoint), "--no-alone"),
        *(*lists, *COMMON, *one_thread),
    )
    rows = content["results"]
    # A vocabulary of 20 has no 30 to keep.
    wanted = [(20, "10"), (20, "all"), (20, "real"), (40, "10"), (40, "30"), (40, "all"), (40, "real")]
    assert [(row["categories"], row["kept"]) for row in rows] == wanted
    for row in rows:
        ours, published = row["candidates"][OURS], row["candidates"][BASELINE]
        assert row["errors"] == {}
        assert ours["kept"] == published["kept"]
        assert ours["agreement"] > 99.5
        assert published["agreement"] == 100
        assert {"image", "scout", "decode1", "decode2", "decode3"} <= set(ours["stages"]) & set(
            published["stages"]
        )
        assert set(row["ours_faster_than"][BASELINE]) == {"whole", "image", "scout", "decoder", "label"}
        assert set(row["ours_faster_than"]["monolithic"]) == {"whole"}
        if row["kept"] == "all":
            assert row["candidates"]["monolithic"]["agreement"] > 99.5
        # Ours found what those rows keep, and so was warm.
        first_calls = [figures["first_call_ms"] for figures in row["candidates"].values()]
        assert all((first is None) == (row["kept"] == "real") for first in first_calls)
    real = rows[-1]["candidates"][OURS]["kept"]
    assert 40 > real[0] >= real[1] >= real[2]
    assert set(rows[0]["images_per_second"]) == {"one at a time", "stream, batch 1", "stream, batch 4"}
    assert {"cpu", "gpu", "driver", "versions", "commit", "preset", "precision"} <= set(content)


def test_autocast_agrees_and_only_bf16_runs_on_a_cpu(
    tiny_bundle: Path, tiny_checkpoint: Path, one_thread: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    against = "published,published-autocast,published-autocast-bf16"
    row = ["--vocabulary-size", "20", "--kept", "8", "--repeats", "1", "--pictures", "1", "--stream", "0"]
    command = ["--checkpoint", str(tiny_checkpoint), "--no-alone", "--against", against, "--device", "cpu"]
    content = bench(capsys, str(tiny_bundle), *command, *row, *one_thread)
    assert set(content["skipped"]) == {"published-autocast"}
    assert "it needs --device cuda" in content["skipped"]["published-autocast"]
    assert content["candidates"]["published-autocast-bf16"] == ["PyTorch eager, cpu", "bf16"]
    assert 50 < content["results"][0]["candidates"]["published-autocast-bf16"]["agreement"] < 100


def test_a_process_of_its_own_tells_its_memory(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    segmenter = Segmenter(tiny_bundle)
    vocabulary = segmenter.vocabulary(VOCABULARY[:8])
    (image,) = scene_images(1, 64)
    subject = Subject(str(tiny_bundle), str(tiny_checkpoint), "onnxruntime", "cpu", 1)
    found = {
        name: measure_alone(name, subject, vocabulary, image, Forced(4).sets(8)) for name in (OURS, BASELINE)
    }
    for record in found.values():
        assert record["peak_mib"] >= record["opened_mib"] > 10
    # PyTorch alone is larger than our whole runtime.
    assert found[BASELINE]["opened_mib"] > found[OURS]["opened_mib"]
    broken = Subject(str(tiny_bundle / "nothing"), None, None, "cpu", 1)
    assert "no such bundle" in measure_alone(OURS, broken, vocabulary, image, Forced(4).sets(8))["error"]


def test_a_candidate_that_fails_leaves_its_error(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    segmenter = Segmenter(tiny_bundle)
    subject = Subject(str(tiny_bundle), str(tiny_checkpoint), None, "cpu", None)

    def run(image: np.ndarray, sets: KeptSets) -> Outcome:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117]\nnot enough memory")

    broken = Candidate("broken", "nothing", "fp32", lambda _vocabulary: run)
    case = Case(segmenter.vocabulary(VOCABULARY[:8]), "4", scene_images(1, 64))
    row = compare(case, segmenter, [open_candidate(OURS, subject), broken], 1, quiet).row()
    assert set(row["candidates"]) == {OURS}
    assert row["candidates"][OURS]["agreement"] is None
    assert "not enough memory" in row["errors"]["broken"]


@pytest.mark.parametrize("calls", [2, 3, 4])
def test_one_that_fails_in_a_round_leaves_the_others(tiny_bundle: Path, calls: int) -> None:
    segmenter = Segmenter(tiny_bundle)
    mine = ours(segmenter)

    def with_vocabulary(vocabulary: Vocabulary) -> Run:
        working, left = mine.with_vocabulary(vocabulary), iter(range(calls))

        def run(image: np.ndarray, sets: KeptSets) -> Outcome:
            if next(left, None) is None:
                raise RuntimeError("CUDA out of memory")
            return working(image, sets)

        return run

    broken = Candidate("broken", "nothing", "fp32", with_vocabulary)
    other = Candidate("other", "nothing", "fp32", mine.with_vocabulary)
    case = Case(segmenter.vocabulary(VOCABULARY[:8]), "4", scene_images(1, 64))
    row = compare(case, segmenter, [mine, broken, other], 4, quiet).row()
    assert {name: figures["runs"] for name, figures in row["candidates"].items()} == {OURS: 4, "other": 4}
    assert "CUDA out of memory" in row["errors"]["broken"]
    assert set(row["ours_faster_than"]) == {"other"}
    alone = compare(case, segmenter, [broken], 4, quiet).row()
    assert alone["candidates"] == {} and set(alone["errors"]) == {"broken"}


@pytest.mark.parametrize("name", [OURS, "monolithic"])
def test_device_memory_outside_pytorch_is_the_drivers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = iter([100, 160])
    labelled = Outcome(np.zeros((8, 8), dtype=np.int32), (4, 4, 4), {})
    nothing = Candidate(name, "nothing", "fp32", lambda _vocabulary: lambda _image, _sets: labelled)
    monkeypatch.setattr(latency_memory, "device_memory_used", lambda: next(used))
    monkeypatch.setattr(latency_memory, "open_candidate", lambda _name, _subject: nothing)
    sets = {f"kept{point}": np.arange(4) for point in range(3)}
    case: dict[str, Any] = {"text": random_text(4, 1, 2), "image": np.zeros((8, 8, 3)), **sets}
    np.savez(tmp_path / "case.npz", **case)
    subject = Subject("", None, None, "cuda", None)
    assert latency_memory._main(name, subject, str(tmp_path / "case.npz"))["device_mib"] == 60


def test_case_policies_keep_what_its_sets_say(tiny_bundle: Path) -> None:
    segmenter = Segmenter(tiny_bundle)
    text = segmenter.vocabulary(VOCABULARY[:12]).text
    vocabulary = Vocabulary(VOCABULARY[:12], text)
    images = scene_images(2, 64)
    for kept in ("3", "all", "real"):
        case = Case(vocabulary, kept, images)
        for image, sets in zip(images, case.sets(segmenter), strict=True):
            result = segmenter(image, vocabulary, rejection=case.policy(), short_side=None)
            assert result.kept == tuple(len(each) for each in sets)


def test_bundles_alternate_in_the_same_rounds(
    tiny_bundle: Path, tiny_bundle_int8: Path, tiny_bundle_bf16: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "latency.json"
    bundles = [str(bundle) for bundle in (tiny_bundle, tiny_bundle_int8, tiny_bundle_bf16)]
    sizes = ["--vocabulary-size", "20,40", "--kept", "8", "--growth", "20,60", "--backend", "onnxruntime"]
    sizes += ["--images-at-once", "2"]
    baselines = ["--checkpoint", str(tiny_checkpoint), "--against", "published", "--no-alone"]
    assert main(["bench", "latency", *bundles, *sizes, *baselines, *COMMON, "-o", str(output)]) == 0
    content = json.loads(output.read_text())
    # Of BF16 ONNX Runtime says that it cannot run it, and the others are measured.
    (reason,) = (reason for name, reason in content["skipped"].items() if bundles[2] in name)
    assert "is of bfloat16" in reason
    assert (content["precision"], content["backend"]) == (None, "onnxruntime")
    rows = content["results"]
    which = [(row["categories"], row["precision"], row["backend"]) for row in rows]
    assert which == [(size, each, "onnxruntime") for size in (20, 40) for each in ("fp32", "int8")]
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert set(first["candidates"]) == {OURS, BASELINE} == set(second["candidates"])
        # Both are compared with the same runs of the baseline, and are not the same themselves.
        assert first["candidates"][BASELINE] == second["candidates"][BASELINE]
        assert first["candidates"][OURS] != second["candidates"][OURS]
        assert first["ours_faster_than"] != second["ours_faster_than"]
        for row in (first, second):
            assert row["candidates"][OURS]["agreement"] > 98
            assert set(row["stream_faster"]) == {"stream, batch 1", "stream, batch 4", "side by side"}
            assert set(row["images_per_second"]) == {"one at a time", *row["stream_faster"]}
    grown = content["growth"]
    assert [row["precision"] for row in grown] == ["fp32", "int8"]
    for row in grown:
        assert row["categories"] == [20, 60] and len(row["p50_ms"]) == 2
        assert row["longer"][0]["of_medians"] == pytest.approx(row["p50_ms"][1] / row["p50_ms"][0])


def test_bundles_of_two_checkpoints_are_refused(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_bundle, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["checkpoint"] |= {"file": "other.pth", "sha256": "0" * 64}
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert main(["bench", "latency", str(tiny_bundle), str(other), "--against", "none"]) == 2
    assert "other: was exported from other.pth, not from sed-tiny.safetensors" in capsys.readouterr().err


def test_what_no_backend_runs_is_refused(tiny_bundle_bf16: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = str(tiny_bundle_bf16)
    assert main(["bench", "latency", bundle, "--backend", "onnxruntime"]) == 2
    assert main(["bench", "latency", bundle, "--backend", "onnxruntime,onnxruntime-cuda"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all("is of bfloat16" in error for error in errors)


def test_ways_alternate_and_start_in_turn() -> None:
    calls: list[str] = []
    ways = {name: partial(calls.append, name) for name in ("a", "b", "c")}
    times = alternate(ways, 4)
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"
    assert {name: len(each) for name, each in times.items()} == {"a": 4, "b": 4, "c": 4}


def test_a_row_has_the_errors_of_its_own_bundle() -> None:
    case = Case(Vocabulary(("a", "b"), random_text(2, 1, 4)), "all", [])
    compared = Comparison(
        case, ["mine", "other"], {}, {"mine": "too large", "x": "gone", "other": "too slow"}
    )
    assert compared.row("mine")["errors"] == {OURS: "too large", "x": "gone"}
    assert compared.row("other")["errors"] == {OURS: "too slow", "x": "gone"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vocabulary-size", "20,x"], "--vocabulary-size: 'x' is unknown"),
        (["--vocabulary-size", "0"], "'0' is unknown"),
        (["--kept", "some"], "--kept: 'some' is unknown; give numbers from 1, all or real"),
        (["--against", "reference"], "--against: 'reference' is unknown; give published"),
        (
            ["--against", "published"],
            "name sed-tiny.safetensors, which it was exported from, with --checkpoint",
        ),
        (["--checkpoint", "missing.pth"], "missing.pth: no such file"),
        (["--device", "tpu"], "--device: 'tpu' is unknown"),
        (["--backend", "onnxruntime,npu"], "--backend: 'npu' is unknown; give auto"),
        (["--growth", "150,x"], "--growth: 'x' is unknown"),
        (["--growth", "20,40", "--kept", "all"], "--growth: forces a number of categories, and --kept all"),
        (["--output", "."], ".: is a folder"),
        (
            ["--vocabulary-size", "16,20", "--kept", "20,32"],
            "--kept: 20,32 leaves no row for vocabularies of 16",
        ),
    ],
)
def test_bad_options_are_one_line(
    tiny_bundle: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "latency", str(tiny_bundle), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_another_checkpoint_is_refused(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"weights")
    assert main(["bench", "latency", str(tiny_bundle), "--checkpoint", str(other)]) == 2
    assert "is not what" in capsys.readouterr().err


def test_without_a_checkpoint_ours_is_measured_alone(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "latency.json"
    lists = ["--vocabulary-size", "12", "--kept", "4", "--no-alone", "-o", str(output)]
    assert main(["bench", "latency", str(tiny_bundle), *lists, *COMMON]) == 0
    assert "images/s" in capsys.readouterr().out
    content = json.loads(output.read_text())
    assert content["kind"] == "latency"
    assert set(content["candidates"]) == {OURS}
