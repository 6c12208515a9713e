"""`sed-trt bench sweep`: policies on the same scenes, and bad options."""

import json
from pathlib import Path

import pytest

from sed_trt.cli.main import main


def test_sweep_compares_policies_on_the_same_scenes(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "sweep.json"
    sizes = ["--vocabulary-size", "181", "--scenes", "2", "-o", str(output)]
    policies = ["-r", "topk:1", "-r", "budget:12"]
    assert main(["bench", "sweep", str(tiny_bundle), *sizes, *policies]) == 0
    content = json.loads(output.read_text())
    rows = {row["rejection"]: row for row in content["results"]}
    # Without rejection is always there: it is what the others' labels are compared with.
    assert list(rows) == ["none", "topk:1", "budget:12"]
    assert rows["none"]["kept"] == [181, 181, 181] and rows["none"]["agreement"] == 100
    assert rows["budget:12"]["kept"] == [12, 12, 12]
    assert all(row["scenes"] == 2 and 0 <= row["miou"] <= 100 for row in rows.values())
    assert content["recommended"]["181"] in rows
    assert "is the fastest that loses" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vocabulary-size", "20"], "--vocabulary-size: size is 20; expected 181 to 1205 names"),
        (["-r", "topk:9"], "k is 9, expected a whole number from 1 to 8"),
        (["--plot", "."], ".: is a folder"),
        (["--plot", "sweep"], "sweep: has the suffix '', expected .png or .svg"),
        (["--plot", "x.xyz"], "x.xyz: has the suffix '.xyz', expected .png or .svg"),
    ],
)
def test_bad_sweep_options_are_one_line(
    tiny_bundle: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "sweep", str(tiny_bundle), *arguments]) == 2
    assert message in capsys.readouterr().err
