"""Reports and sweeps: tables that say what the results say, plots that are there, a recommendation."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sed_trt.benchmarks.report.columns import heading
from sed_trt.benchmarks.report.pages import markdown_table, updated
from sed_trt.benchmarks.speed.sweep import recommended
from sed_trt.cli.main import main
from sed_trt.stages import STAGE_NAMES

MACHINE = {
    "cpu": "Some CPU",
    "gpu": None,
    "cpu_cores": 2,
    "threads": None,
    "versions": {"numpy": "2.0", "torch": None},
}
PNG = b"\x89PNG"


def latency_results() -> dict[str, Any]:
    """Made by hand: two vocabularies, with and without rejection."""

    def timed(milliseconds: float) -> dict[str, Any]:
        stages = {stage: {"p50_ms": milliseconds / 4} for stage in ("image", "scout", "decode1", "label")}
        return {"p50_ms": milliseconds, "agreement": 99.5, "stages": stages}

    ratio = {
        "whole": {"q1": 2.9, "median": 3.0, "q3": 3.1},
        "decoder": {"q1": 4.9, "median": 5.0, "q3": 5.1},
    }
    rows = [
        {
            "categories": categories,
            "kept": kept,
            "candidates": {
                "sed-trt": timed(10.0 * categories),
                "published": timed(30.0 * categories),
                "monolithic": timed(90.0 * categories) | {"stages": {}},
            },
            "errors": {},
            "ours_faster_than": {"published": ratio},
            "memory_ratio": {"published": 0.4},
        }
        for categories in (20, 59)
        for kept in ("16", "all")
    ]
    return {
        "kind": "latency",
        "preset": "sed-b",
        "precision": "fp32",
        "backend": "onnxruntime",
        **MACHINE,
        "candidates": {"published": ["PyTorch eager, cpu", "fp32"]},
        "skipped": {"published-autocast": "needs a GPU"},
        "results": rows,
    }


def two_bundles() -> dict[str, Any]:
    """The same for an FP32 and a BF16 bundle that ran in the same rounds, with streams and growth."""
    ratio = {"of_medians": 1.4, "q1": 1.25, "median": 1.5, "q3": 1.75}
    which = [{"precision": "fp32", "backend": "onnxruntime"}, {"precision": "bf16", "backend": "openvino"}]
    rows = [{**row, **each} for row in latency_results()["results"] for each in which]
    for row in rows[:2]:
        row["images_per_second"] = {"one at a time": 2.0, "stream, batch 1": 3.0}
        row["stream_faster"] = {"stream, batch 1": ratio}
    growth = [
        {**which[0], "categories": [150, 4096], "kept": "32", "p50_ms": [100, 140], "longer": [ratio]},
        {**which[1], "categories": [150, 4096], "error": "not enough memory"},
    ]
    common = {"precision": None, "backend": None, "results": rows, "growth": growth}
    return latency_results() | common


def parity_results(precision: str, runs_on: str, miou: float) -> dict[str, Any]:
    """Made by hand: a bundle of sed-tiny against the one in FP32 on the same backend."""

    def row(rejection: str, drop: float) -> dict[str, Any]:
        sides = {
            "source": {"rejection": rejection, "miou": miou},
            "against": {"rejection": rejection, "miou": miou + drop},
        }
        return sides | {"drop": drop, "agreement": 99.875}

    return {
        "kind": "parity",
        "source": {"precision": precision, "runs_on": runs_on},
        "against": {"precision": "fp32", "runs_on": runs_on.split(",")[0]},
        "results": [row("none", 9.0), row("topk:8", 0.25)],
    }


def sweep_row(rejection: str, milliseconds: float, miou: float, kept: int) -> dict[str, Any]:
    """A policy's figures."""
    return {
        "categories": 181,
        "rejection": rejection,
        "kept": [kept, kept, kept],
        "p50_ms": milliseconds,
        "decoder_p50_ms": milliseconds / 2,
        "miou": miou,
        "agreement": 90.0,
    }


SWEEP = [
    sweep_row("none", 900, 20.0, 181),
    sweep_row("topk:8", 300, 25.0, 50),
    sweep_row("min-pixels:8:5", 200, 24.95, 30),
    sweep_row("topk:1", 80, 24.0, 9),
]


def sweep_results() -> dict[str, Any]:
    """Made by hand."""
    common = {"kind": "sweep", "preset": "sed-tiny", "precision": "fp32", "scenes": 4, **MACHINE}
    return common | {"results": SWEEP}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results, with a file of a kind that has no plots."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "cpu.json").write_text(json.dumps(latency_results()))
    (folder / "policies.json").write_text(json.dumps(sweep_results()))
    return folder


def test_latency_table_has_ratios_and_agreement() -> None:
    lines = markdown_table([latency_results()]).splitlines()
    assert len(lines) == 6
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert (
        "fp32 | onnxruntime | 20 | 16 | 200 | 600 | 3.0 (2.9-3.1) | 5.0 (4.9-5.1) | 50 | 0.40 | 99.50 |"
        in lines[2]
    )


def cells(table: str) -> list[dict[str, str]]:
    """The rows of a Markdown table by their headers."""
    headers, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return [dict(zip(headers, row, strict=True)) for row in rows]


def test_rows_of_several_bundles_have_the_miou_of_their_precision_and_backend() -> None:
    scores = [
        parity_results("bf16", "openvino", 50.0),
        # An emulation is no run on a backend.
        parity_results("bf16", "onnxruntime, every operator rounded", 1.0),
        parity_results("int8", "onnxruntime", 49.0),
    ]
    fp32, bf16 = cells(markdown_table([two_bundles()], "results", scores))[:2]
    assert (fp32["precision"], fp32["backend"]) == ("fp32", "onnxruntime")
    assert (bf16["precision"], bf16["backend"]) == ("bf16", "openvino")
    names = ("sed-tiny's mIoU", "sed-tiny's labels as in FP32, %")
    assert [fp32[name] for name in names] == ["49.25", "-"]
    assert [bf16[name] for name in names] == ["50.00", "99.88"]
    # Without scores the columns are not there.
    assert not set(names) & set(cells(markdown_table([two_bundles()]))[0])


def test_other_tables_of_latency() -> None:
    content = two_bundles()
    candidates = cells(markdown_table([content], "candidates"))
    # Ours once for each bundle, baselines once for each row that the bundles share.
    found = [each["candidate"] for each in candidates if each["categories"] == "20" and each["kept"] == "16"]
    assert found == ["sed-trt", "published", "monolithic", "sed-trt"]
    assert candidates[0]["runs on"] == "onnxruntime, fp32"
    assert candidates[-1]["not measured because"] == "needs a GPU"
    baselines = cells(markdown_table([content], "baselines"))
    assert {row["`published`"] for row in baselines} == {"3.0 (2.9-3.1)"}
    assert "`published-compiled`" not in baselines[0]
    streams = cells(markdown_table([content], "stream"))
    assert [row["backend"] for row in streams] == ["onnxruntime", "openvino"]
    assert streams[0]["one at a time"] == "2.00"
    assert streams[0]["times as many (quartiles)"] == "1.50 (1.25-1.75)"
    grown, failed = cells(markdown_table([content], "growth"))
    assert (grown["categories"], grown["ratio of medians"]) == ("150→4096", "1.40")
    assert failed["error"] == "not enough memory"
    assert markdown_table([latency_results()], "growth") == "Not measured yet."


def test_a_marker_names_the_table_and_the_scores(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "a.json").write_text(json.dumps(two_bundles()))
    (tmp_path / "b.json").write_text(json.dumps(parity_results("bf16", "openvino", 50.0)))
    page.write_text("<!-- stream: a.json with b.json -->\nold\n<!-- end of table -->\n")
    lines = updated(page).splitlines()
    assert lines[0] == "<!-- stream: a.json with b.json -->"
    assert (
        lines[1:-1]
        == markdown_table([two_bundles()], "stream", [parity_results("bf16", "openvino", 50.0)]).splitlines()
    )
    page.write_text("<!-- stream: b.json -->\n<!-- end of table -->\n")
    with pytest.raises(ValueError, match="have no table 'stream'"):
        updated(page)


def test_the_gpu_check_has_a_row_for_each_candidate_and_failure() -> None:
    latency = latency_results() | {"candidates": {}, "precision": "fp16", "backend": "onnxruntime-cuda"}
    latency["skipped"] = {"published-autocast": "PyTorch sees no GPU"}
    (row,) = latency["results"] = latency["results"][:1]
    row["errors"] = {"monolithic": "out | of memory"}
    del row["candidates"]["monolithic"]
    for figures in row["candidates"].values():
        figures |= {"first_call_ms": 300.0, "p90_ms": 250.0}
    records = [
        {"name": "session", "state": "crashed", "seconds": 1.2, "reason": "died by Aborted: no output"},
        {"name": "cuda", "state": "done", "seconds": 40.0, "latency": latency},
    ]
    rows = markdown_table([{"kind": "gpu-check", "results": records}]).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [each[:4] for each in cells] == [
        ["session", "crashed", "1", "-"],
        ["cuda", "done", "40", "sed-trt"],
        ["cuda", "done", "40", "published"],
        ["cuda", "done", "40", "monolithic failed"],
        ["cuda", "done", "40", "published-autocast skipped"],
    ]
    assert cells[1][4:10] == ["onnxruntime-cuda, fp16", "20", "99.50", "300.0", "200.0", "250.0"]
    assert cells[2][10] == "3.0 (2.9-3.1)"
    assert [each[-1] for each in cells] == [
        *("died by Aborted: no output", "-", "-", "out / of memory", "PyTorch sees no GPU")
    ]


def test_the_heading_says_on_what_it_was_measured() -> None:
    content = latency_results() | {"other_load": 0.125, "kept": [32, 16, 8]}
    assert heading(content) == (
        "kind latency, preset sed-b, precision fp32, backend onnxruntime, kept 32/16/8, CPU Some CPU, "
        "cores 2, load of other processes 0.12, numpy 2.0"
    )


def test_tables_on_pages_and_terminals_need_no_matplotlib(tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "a.json"
    page.write_text("<!-- results: a.json -->\nold\n<!-- end of table -->\n")
    results.write_text(json.dumps(sweep_results() | {"recommended": {}}))
    code = (
        "import json, pathlib, runpy, sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from sed_trt.cli.tables import show_bench\n"
        f"show_bench('sweep', json.loads(pathlib.Path({str(results)!r}).read_text()))\n"
        "runpy.run_module('sed_trt.benchmarks.report.pages', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "min-pixels:8:5" in done.stdout
    assert page.read_text().splitlines()[1:-1] == markdown_table([sweep_results()]).splitlines()


def test_pages_get_the_stages(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- stages -->\nold\n<!-- end of table -->\n")
    lines = updated(page).splitlines()
    assert lines[1] == "| stage | takes | gives |"
    assert [line.split("`")[1] for line in lines[3:-1]] == list(STAGE_NAMES)


def test_columns_without_figures_are_left_out() -> None:
    content = latency_results()
    for row in content["results"]:
        del row["memory_ratio"], row["candidates"]["monolithic"]
    header = markdown_table([content]).splitlines()[0]
    assert "decoder" in header
    assert not any(word in header for word in ("one graph", "first rejection", "peak memory"))


def test_a_page_with_half_a_pair_of_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "a.json").write_text(json.dumps(sweep_results()))
    pair = "<!-- results: a.json -->\n<!-- end of table -->\n"
    page.write_text(pair + "prose\n" + pair)
    assert updated(page).count("| topk:8 |") == 2
    for half in ("<!-- results: a.json -->\n", "<!-- end of table -->\n"):
        page.write_text(half + "prose\n" + pair)
        with pytest.raises(ValueError, match="has no partner"):
            updated(page)


def test_sweep_table() -> None:
    assert "| 181 | topk:8 | 50→50→50 | 300 | 150 | 25.00 | 90.00 |" in markdown_table([sweep_results()])


@pytest.mark.parametrize(("max_drop", "policy"), [(0.0, "topk:8"), (0.1, "min-pixels:8:5"), (1.0, "topk:1")])
def test_the_fastest_good_policy_is_recommended(max_drop: float, policy: str) -> None:
    assert recommended(SWEEP, max_drop) == policy


def test_report_has_tables_and_plots(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (results / "roofline.json").write_text("{}")
    assert main(["bench", "roofline", "--gpu", "a6000", "-o", str(results / "roofline.json")]) == 0
    capsys.readouterr()
    output = tmp_path / "new" / "report"
    assert main(["bench", "report", str(results), "-o", str(output)]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    text = files[0].read_text(encoding="utf-8")
    assert {file.name for file in files} == {
        "report.md",
        "cpu-by-vocabulary.png",
        "cpu-stages.png",
        "policies-speed-miou.png",
        "policies-kept.png",
    }
    for plot in files[1:]:
        assert f"({plot.name})" in text
        assert plot.read_bytes().startswith(PNG)
    for content in (latency_results(), sweep_results()):
        assert markdown_table([content]) in text
    assert "the paper's, PyTorch" in text and "not measured" in text
    assert len(list(output.iterdir())) == len(files)


def test_equal_names_in_two_folders_stay_apart(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    other, output = tmp_path / "other", tmp_path / "report"
    other.mkdir()
    (other / "cpu.json").write_text(json.dumps(latency_results()))
    assert main(["bench", "report", str(results), str(other), "-o", str(output)]) == 0
    assert {file.name for file in output.glob("cpu*")} == {
        "cpu-by-vocabulary.png",
        "cpu-stages.png",
        "cpu-2-by-vocabulary.png",
        "cpu-2-stages.png",
    }
    text = (output / "report.md").read_text(encoding="utf-8")
    assert "## cpu\n" in text and "## cpu-2\n" in text and "(cpu-2-stages.png)" in text


def test_results_without_rows_are_left_out(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for kind, content in (("latency", latency_results()), ("sweep", sweep_results())):
        (results / f"empty-{kind}.json").write_text(json.dumps(content | {"results": []}))
    assert main(["bench", "report", str(results), "-o", str(tmp_path / "report")]) == 0
    assert "empty" not in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "start"), [("a.png", PNG), ("a.PNG", PNG), ("a", PNG), ("a.svg", b"<?xml")])
def test_a_plot_is_one_file_in_its_format(name: str, start: bytes, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from sed_trt.benchmarks.report.plots import speed_against_miou

    speed_against_miou(sweep_results(), tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes().startswith(start)


def test_the_folder_of_the_results_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "results" / "roofline.json"
    assert main(["bench", "roofline", "--gpu", "a6000", "-o", str(output)]) == 0
    assert json.loads(output.read_text())["kind"] == "roofline"
    assert main(["bench", "roofline", "--gpu", "a6000", "-o", str(output / "below.json")]) == 2
    assert "roofline.json: cannot be made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no results with a table"),
        ("{", "cannot be read as results"),
        ("[]", "holds no results"),
        ('{"kind": "unknown"}', "no results with a table"),
    ],
)
def test_bad_results_are_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    assert main(["bench", "report", str(tmp_path), "-o", str(tmp_path / "report")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_file_in_the_folders_place_is_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "taken").write_text("")
    assert main(["bench", "report", str(results), "-o", str(tmp_path / "taken")]) == 2
    assert "taken: cannot be made" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["latency", "profile", "roofline", "report", "sweep"])
def test_every_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", command, "--help"]) == 0
    assert f"Example: sed-trt bench {command}" in " ".join(capsys.readouterr().out.split())
