"""CUDA's libraries without a GPU, compiled from the C beside this: the real onnxruntime-gpu loads them.

Memory is real, arithmetic is not; what is of interest is which calls they count.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent
# The libraries of CUDA 13, the runtime before those that count with it, and the C of those that do something.
LIBRARIES = {
    "libcuda.so.1": None,
    "libcudart.so.13": "cudart.c",
    "libnvJitLink.so.13": None,
    "libcublasLt.so.13": "cublaslt.c",
    "libcublas.so.13": "cublas.c",
    "libcurand.so.10": None,
    "libnvrtc.so.13": None,
    "libcufft.so.12": None,
    "libcudnn.so.9": "cudnn.c",
}


def compiler() -> str:
    """The C compiler; skips the test where there is none."""
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        pytest.skip("no C compiler here")
    return found


def build_stub(site: Path, provider: Path | None = None) -> Path:
    """Compile the libraries into nvidia/cu13/lib and nvidia/cudnn/lib of `site`, as pip's wheels have them.

    `provider` is the CUDA provider of an onnxruntime-gpu: whatever else it needs becomes a function that
    returns 0. Returns `site`.
    """
    functions = needed_functions(provider) if provider else {}
    folder = site / "nvidia" / "cu13" / "lib"
    folders = {"libcuda.so.1": site / "driver", "libcudnn.so.9": site / "nvidia" / "cudnn" / "lib"}
    for name, source in LIBRARIES.items():
        text = (SOURCES / source).read_text() if source else ""
        missing = [each for each in functions.get(name, []) if not re.search(rf"\b{each}\b", text)]
        text += "".join(f"int {each}(void) {{ return 0; }}\n" for each in missing)
        counting = folder / "libcudart.so.13" if source and source != "cudart.c" else None
        compile_library(folders.get(name, folder) / name, text, counting)
    return site


def run_with_stub(
    site: Path, *command: str | Path, before: Path | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """What a Python process prints that finds the stub, and the packages in the folder `before`, first."""
    environment = {**os.environ, **(variables or {})}
    paths = [str(site), str(before or ""), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # The driver's library comes with no wheel.
    environment["LD_LIBRARY_PATH"] = str(site / "driver")
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def compile_library(library: Path, text: str, needed: Path | None = None) -> None:
    """Compile C to a library whose functions have its name as their version."""
    library.parent.mkdir(parents=True, exist_ok=True)
    source, versions = (library.with_name(f"{library.name}.{end}") for end in ("c", "map"))
    source.write_text(text)
    versions.write_text(f"{library.name} {{ global: *; }};\n")
    command: list[str | Path] = [
        compiler(),
        "-shared",
        "-fPIC",
        "-O1",
        "-w",
        "-o",
        library,
        source,
        "-pthread",
    ]
    command += [f"-Wl,-soname,{library.name}", f"-Wl,--version-script={versions}"]
    subprocess.run([*command, *([needed] if needed else [])], check=True)


def needed_functions(provider: Path) -> dict[str, list[str]]:
    """The functions of CUDA's libraries that a provider needs, by library."""
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", "--with-symbol-versions", provider],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    functions: dict[str, list[str]] = defaultdict(list)
    for name, version in re.findall(r" U (\w+)@+(\S+)", listing):
        functions[version].append(name)
    functions["libcuda.so.1"] += re.findall(r" U (cu[A-Z]\w+)$", listing, re.MULTILINE)
    # What it asks for by name when it runs.
    names = set(re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider.read_bytes()))
    functions["libcudnn.so.9"] += sorted(name.decode() for name in names)
    return functions
