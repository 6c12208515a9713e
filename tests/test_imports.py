"""What the light parts must not import, each proven in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "open_clip", "timm", "onnx", "onnxscript", "safetensors")


def imported_by(code: str, cache: Path) -> set[str]:
    """Top-level modules in memory after `code` ran in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint('modules:', *{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"SED_TRT_CACHE": str(cache), "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_runtime_imports_nothing_heavy(tmp_path: Path) -> None:
    modules = imported_by("import sed_trt.runtime", tmp_path)
    assert "tokenizers" in modules
    assert not modules & set(HEAVY)


def test_a_whole_segmentation_imports_nothing_heavy(tiny_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import numpy as np\n"
        "from sed_trt.runtime import Segmenter\n"
        f"segmenter = Segmenter({str(tiny_bundle)!r})\n"
        "image = np.zeros((20, 30, 3), np.uint8)\n"
        "result = segmenter(image, ['sky', 'tree, trees'])\n"
        f"result.overlay().save({str(tmp_path / 'o.png')!r})\n"
        "assert [item.error for item in segmenter.stream([image] * 3, ['sky', 'road'])] == [None] * 3"
    )
    assert not imported_by(code, tmp_path / "cache") & set(HEAVY)
    assert (tmp_path / "o.png").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["--version"]])
def test_help_imports_neither_numpy_nor_torch(arguments: list[str], tmp_path: Path) -> None:
    modules = imported_by(
        f"from sed_trt.cli.main import main\nassert main({arguments!r}) == 0\nprint()", tmp_path
    )
    assert not modules & {*HEAVY, "numpy", "onnxruntime", "PIL"}
