"""The borders between the packages, and what the light parts must not import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sed_trt.tests.paths import ROOT

# What each package may import of the others; every package may import the modules at the root.
ALLOWED: dict[str, set[str]] = {
    "model": set(),
    "engines": set(),
    "export": {"model", "engines"},
    "runtime": {"engines"},
    "serve": {"engines", "runtime"},
    "train": {"model", "runtime"},
    "benchmarks": {"model", "engines", "export", "runtime", "train"},
    "cli": {"model", "engines", "export", "runtime", "serve", "train", "benchmarks"},
}
ROOT_MODULES = "the root"
HEAVY = ("torch", "torchvision", "open_clip", "timm", "onnx", "onnxscript", "safetensors")


# Code of ours that only GPUs and builds need.
GPU_AND_BUILD = (
    "sed_trt.engines.trt",
    "sed_trt.engines.device",
    "sed_trt.engines.build",
    "sed_trt.engines.ort.cuda",
)
# Of ours, after a whole `sed-trt segment` on the CPU.
MAX_MODULES = 30


def package_of(module: tuple[str, ...]) -> str:
    """The package of a module that is given relative to sed_trt."""
    return module[0] if module and module[0] in ALLOWED else ROOT_MODULES


def internal_imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and package of every import of our own modules in a file, those inside functions included."""
    folder = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = folder[: len(folder) - node.level + 1]
            elif (node.module or "").split(".")[0] == "sed_trt":
                raise AssertionError(f"{file}:{node.lineno}: imports inside the package are relative")
            else:
                continue
            module = (*base, *(node.module.split(".") if node.module else ()))
            for name in node.names:
                yield node.lineno, package_of((*module, name.name))


def product_files() -> list[Path]:
    """All modules of the product."""
    return [*ROOT.glob("*.py"), *(file for package in ALLOWED for file in (ROOT / package).rglob("*.py"))]


def test_every_folder_of_modules_is_a_known_package() -> None:
    folders = {
        file.relative_to(ROOT).parts[0] for file in ROOT.glob("*/**/*.py") if ".venv" not in file.parts
    }
    assert folders - {"tests"} == set(ALLOWED)


@pytest.mark.parametrize("package", [ROOT_MODULES, *ALLOWED])
def test_imports_cross_no_border(package: str) -> None:
    files = [file for file in product_files() if package_of(file.relative_to(ROOT).parent.parts) == package]
    assert files
    allowed = {package, ROOT_MODULES} | ALLOWED.get(package, set())
    crossing = [
        f"{file.relative_to(ROOT)}:{line} imports {target}"
        for file in files
        for line, target in internal_imports(file)
        if target not in allowed
    ]
    assert not crossing


def modules_after(code: str, cache: Path) -> set[str]:
    """Modules in memory after `code` ran in a fresh interpreter, by their full names."""
    script = f"{code}\nimport sys\nprint('modules:', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"SED_TRT_CACHE": str(cache), "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def imported_by(code: str, cache: Path) -> set[str]:
    """Top-level modules in memory after `code` ran in a fresh interpreter."""
    return {name.split(".")[0] for name in modules_after(code, cache)}


def test_runtime_imports_nothing_heavy(tmp_path: Path) -> None:
    modules = imported_by("import sed_trt.runtime", tmp_path)
    assert "tokenizers" in modules
    assert not modules & set(HEAVY)


def test_the_server_imports_nothing_heavy(tmp_path: Path) -> None:
    modules = imported_by("import sed_trt.serve.run", tmp_path)
    assert "uvicorn" in modules
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


def test_the_command_segment_imports_few_modules_and_none_for_gpus(tiny_bundle: Path, tmp_path: Path) -> None:
    image = ROOT / "examples" / "scene-1.png"
    arguments = [
        "segment",
        str(tiny_bundle),
        str(image),
        "--categories",
        "sky; tree",
        "-o",
        str(tmp_path / "o"),
    ]
    code = (
        f"from sed_trt.cli.main import main\nassert main({[*arguments, '--backend', 'onnxruntime']!r}) == 0"
    )
    modules = modules_after(code, tmp_path / "cache")
    ours = {name for name in modules if name.split(".")[0] == "sed_trt"}
    assert not [name for name in ours if name.startswith(GPU_AND_BUILD)]
    assert not {name.split(".")[0] for name in modules} & set(HEAVY)
    assert len(ours) <= MAX_MODULES, sorted(ours)


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["--version"]])
def test_help_imports_neither_numpy_nor_torch(arguments: list[str], tmp_path: Path) -> None:
    modules = imported_by(
        f"from sed_trt.cli.main import main\nassert main({arguments!r}) == 0\nprint()", tmp_path
    )
    assert not modules & {*HEAVY, "numpy", "onnxruntime", "PIL"}
