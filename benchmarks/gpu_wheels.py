"""Carries Python packages in parts to a machine with a GPU and no network.

    python3 benchmarks/gpu_wheels.py pack                           # here: .gpu_wheels/parts
    python3 benchmarks/gpu_wheels.py receive FOLDER                 # there, for each part: to /tmp/gpu_wheels
    python3 benchmarks/gpu_wheels.py install                        # there, once: into /tmp/site

Every command may be repeated: what is there and has its sha256 is not done again. This file needs nothing but
Python and pip, and is run as a file, since sed-trt's own requirements are among what it carries.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(".gpu_wheels")
STORE = Path("/tmp/gpu_wheels")
SITE = Path("/tmp/site")
MANIFEST = "manifest.json"
# In the folder that packages are installed into: the sha256 of the manifest that they are from.
INSTALLED = ".gpu_wheels"
# What sed-trt's export, runtime and benchmarks need beside what `THERE` lists.
PACKAGES = ("onnxruntime-gpu>=1.22", "open_clip_torch", "ftfy", "wcwidth", "platformdirs", "msgspec")
# Packages of a machine with PyTorch for CUDA 13, whose wheels bring CUDA's libraries, that those above need.
THERE = (
    "torch", "torchvision", "timm", "numpy", "pillow", "regex", "tqdm", "huggingface-hub", "safetensors",
    "flatbuffers", "packaging", "protobuf", "sympy", "filelock", "rich", "typer", "tokenizers",
)  # fmt: skip
PYTHON_VERSION = "3.12"
# pip takes a wheel for exactly these versions of glibc, not for earlier ones.
PLATFORMS = tuple(
    f"{name}_x86_64"
    for name in (
        *(f"manylinux_2_{minor}" for minor in (34, 31, 28, 27, 24, 17)),
        "manylinux2014",
        "manylinux1",
    )
)
MAX_PART_BYTES = 60_000_000
# What one call carries at most, the working tree included, and what is left for the manifest.
CARRIED_BYTES = 64 * 2**20
RESERVE = 2**20
MIN_PART_BYTES = 4_000_000
CHUNK = 2**20


class WheelsError(Exception):
    """Something is missing, damaged or too large; the message says what, and what to do."""


def pack(
    folder: Path, packages: Sequence[str], there: Sequence[str], part_bytes: int, python: str = PYTHON_VERSION
) -> dict[str, Any]:
    """Download wheels to `folder`/wheels and write them to `folder`/parts, in parts of `part_bytes` at most.

    Args:
        folder: created if it is missing; wheels that are there are not downloaded again.
        packages: requirements, each of which is one wheel: what they need is not followed.
        there: names of packages that the machine has, beside `THERE`.
        part_bytes: of a part.
        python: version of the machine's Python.

    Returns:
        The manifest: names, sizes and sha256 of wheels and parts.

    Raises:
        WheelsError: pip cannot download a wheel, or a wheel needs a package that is neither packed nor there.
    """
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += [
        "--python-version",
        python,
        "--implementation",
        "cp",
        *platforms,
        "--dest",
        str(wheels),
    ]
    if packages and subprocess.run([*command, *packages], check=False).returncode != 0:
        raise WheelsError(f"pip cannot download {', '.join(packages)}; its message is above")
    files = sorted(wheels.glob("*.whl"))
    check_needs(files, {*THERE, *there}, python)
    return split(files, folder / "parts", part_bytes)


def check_needs(wheels: Sequence[Path], there: set[str], python: str = PYTHON_VERSION) -> None:
    """Refuse wheels that need a package which is neither among them nor `there`, or come in two versions.

    `python` is the version that they are for.

    Raises:
        WheelsError: they do.
    """
    names = [_name(wheel.name.split("-")[0]) for wheel in wheels]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise WheelsError(
            f"{', '.join(sorted(twice))}: several versions are in {wheels[0].parent}; delete one"
        )
    known = {*names, *map(_name, there)}
    missing = {
        f"{need} (for {name})"
        for wheel, name in zip(wheels, names, strict=True)
        for need in _needs(wheel, python)
        if need not in known
    }
    if missing:
        raise WheelsError(
            f"neither packed nor there: {', '.join(sorted(missing))}; add them with --also, or with --there "
            "name those that the machine has"
        )


def _needs(wheel: Path, python: str) -> Iterator[str]:
    """Names of the packages that a wheel needs on Linux with a version of Python, without its extras."""
    from pip._vendor.packaging.requirements import Requirement

    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        content = HeaderParser().parsestr(archive.read(name).decode())
    machine = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
    machine |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    for text in content.get_all("Requires-Dist", []):
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(machine):
            yield _name(requirement.name)


def _name(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def split(wheels: Sequence[Path], folder: Path, part_bytes: int) -> dict[str, Any]:
    """Write the bytes of all wheels, one after the other, as parts into `folder`, and then their manifest."""
    manifest: dict[str, Any] = {"wheels": [_record(wheel) for wheel in wheels], "parts": []}
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(wheel["bytes"] for wheel in manifest["wheels"])
    known = _read_manifest(folder) if (folder / MANIFEST).exists() else {"wheels": [], "parts": []}
    largest = max((part["bytes"] for part in known["parts"]), default=0)
    if (
        known["wheels"] == manifest["wheels"]
        and largest == min(part_bytes, total)
        and not missing(folder, folder)
    ):
        return known
    for old in (folder / MANIFEST, *folder.glob("part-*")):
        old.unlink(missing_ok=True)
    content = _chunks(wheels)
    rest = b""
    for number in range(-(-total // part_bytes)):
        part = folder / f"part-{number:02}"
        with part.open("wb") as file:
            room = part_bytes
            while room:
                rest = rest or next(content, b"")
                if not rest:
                    break
                file.write(rest[:room])
                room, rest = room - len(rest[:room]), rest[room:]
        manifest["parts"].append(_record(part))
    temporary = folder / f"{MANIFEST}.unfinished"
    temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    temporary.replace(folder / MANIFEST)
    return manifest


def _chunks(files: Sequence[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


def _record(file: Path) -> dict[str, Any]:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"name": file.name, "bytes": file.stat().st_size, "sha256": digest}


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise WheelsError(
            f"{folder / MANIFEST}: cannot be read ({error}); carry the manifest with every part"
        ) from error
    return manifest


def missing(folder: Path, store: Path) -> list[str]:
    """Names of the parts of the manifest in `folder` that are not, whole and unaltered, in `store`."""
    return [part["name"] for part in _read_manifest(folder)["parts"] if not _is_there(part, store)]


def _is_there(record: dict[str, Any], folder: Path) -> bool:
    file = folder / str(record["name"])
    return file.exists() and file.stat().st_size == record["bytes"] and _record(file) == record


def receive(folder: Path, store: Path) -> list[str]:
    """Copy the parts in `folder` that are whole to `store`; returns the names of those still missing.

    The store is emptied first where it is of another manifest than that in `folder`.

    Raises:
        WheelsError: `folder` holds no manifest, or a part that is damaged.
    """
    manifest = _read_manifest(folder)
    if (store / MANIFEST).exists() and _read_manifest(store) != manifest:
        shutil.rmtree(store)
    store.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / MANIFEST, store / MANIFEST)
    for part in manifest["parts"]:
        if _is_there(part, store) or not (folder / part["name"]).exists():
            continue
        if not _is_there(part, folder):
            raise WheelsError(f"{folder / part['name']}: does not have the manifest's sha256; carry it again")
        temporary = store / f"{part['name']}.unfinished"
        shutil.copyfile(folder / part["name"], temporary)
        temporary.replace(store / part["name"])
    return missing(store, store)


def join(store: Path, folder: Path) -> list[Path]:
    """Write the wheels of the parts in `store` to `folder`; returns them, each with its sha256.

    Raises:
        WheelsError: a part is missing or damaged, or a wheel is not what was packed.
    """
    absent = missing(store, store)
    if absent:
        raise WheelsError(f"{store}: {', '.join(absent)} missing; carry them and run receive again")
    manifest = _read_manifest(store)
    content = _chunks([store / part["name"] for part in manifest["parts"]])
    rest = b""
    wheels = []
    for record in manifest["wheels"]:
        wheel = folder / record["name"]
        with wheel.open("wb") as file:
            room = record["bytes"]
            while room:
                rest = rest or next(content)
                file.write(rest[:room])
                room, rest = room - len(rest[:room]), rest[room:]
        if _record(wheel) != record:
            raise WheelsError(f"{wheel}: is not what was packed; delete {store} and carry the parts again")
        wheels.append(wheel)
    return wheels


def install(store: Path, site: Path) -> bool:
    """Join the wheels and install them into `site`, for PYTHONPATH; False where they are installed already.

    Raises:
        WheelsError: see `join`; pip cannot install them; or one needs a package that is not installed.
    """
    digest = _record(store / MANIFEST)["sha256"] if (store / MANIFEST).exists() else ""
    mark = site / INSTALLED
    if digest and mark.exists() and mark.read_text() == digest:
        return False
    with tempfile.TemporaryDirectory(dir=store if store.exists() else None) as folder:
        wheels = join(store, Path(folder))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", folder]
        command += ["--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--target", str(site)]
        if subprocess.run([*command, *map(str, wheels)], check=False).returncode != 0:
            raise WheelsError(f"pip cannot install the wheels of {store} into {site}; its message is above")
        names = [each.metadata["Name"] for each in metadata.distributions(path=[str(site), *sys.path])]
        check_needs(wheels, set(names), f"{sys.version_info.major}.{sys.version_info.minor}")
    mark.write_text(digest)
    return True


def carried_part_bytes(root: Path) -> int:
    """Bytes of the largest part that goes in one call beside the working tree `root`.

    Raises:
        WheelsError: the tree leaves too little.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = [root / name for name in done.stdout.split("\0") if name]
    tree = sum(os.lstat(file).st_size for file in files if os.path.lexists(file))
    left = CARRIED_BYTES - tree - RESERVE
    if left < MIN_PART_BYTES:
        raise WheelsError(
            f"{root}: its files take {tree / 1e6:.0f} MB of the {CARRIED_BYTES / 1e6:.0f} MB of a call"
        )
    return min(MAX_PART_BYTES, left)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Carry packages in parts to a machine without a network.")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="download wheels and cut them into parts")
    packing.add_argument("--folder", type=Path, default=FOLDER)
    packing.add_argument(
        "--only", nargs="+", default=PACKAGES, help="packages, in the place of the usual ones"
    )
    packing.add_argument("--also", nargs="+", default=[], help="packages beside those")
    packing.add_argument("--there", nargs="+", default=[], help="packages that the machine has")
    packing.add_argument("--python", default=PYTHON_VERSION, help="version of the machine's Python")
    packing.add_argument(
        "--part-mb", type=float, help="largest part; by default what the working tree leaves"
    )
    receiving = commands.add_parser("receive", help="check carried parts and keep them")
    receiving.add_argument("folder", type=Path, help="with the manifest and some parts")
    receiving.add_argument("--store", type=Path, default=STORE)
    installing = commands.add_parser("install", help="join the parts and install the wheels")
    installing.add_argument("--store", type=Path, default=STORE)
    installing.add_argument("--target", type=Path, default=SITE)
    options = parser.parse_args(arguments)
    try:
        if options.command == "pack":
            part_bytes = int(options.part_mb * 1e6) if options.part_mb else carried_part_bytes(ROOT)
            packages = [*options.only, *options.also]
            manifest = pack(options.folder, packages, options.there, part_bytes, options.python)
            for part in manifest["parts"]:
                print(f"{options.folder / 'parts' / part['name']}: {part['bytes'] / 1e6:.1f} MB")
            print(f"{len(manifest['wheels'])} wheels in {len(manifest['parts'])} parts")
        elif options.command == "receive":
            absent = receive(options.folder, options.store)
            print(f"missing: {', '.join(absent)}" if absent else "all parts are there")
        else:
            done = install(options.store, options.target)
            print(f"{options.target}: {'installed' if done else 'was installed before'}")
    except WheelsError as error:
        sys.stderr.write(f"gpu_wheels: error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
