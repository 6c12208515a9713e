"""Packages carried in parts: packed, received in any order, joined, checked and installed."""

import json
import random
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from sed_trt.benchmarks import gpu_wheels
from sed_trt.benchmarks.gpu_wheels import (
    MANIFEST,
    WheelsError,
    carried_part_bytes,
    check_needs,
    install,
    join,
    main,
    missing,
    receive,
    split,
)
from sed_trt.tests.paths import ROOT

PART = 10_000


def write_wheel(folder: Path, name: str, needs: tuple[str, ...] = (), size: int = 17_000) -> Path:
    """A wheel with one module of `size` bytes that do not compress."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    content = random.Random(name).randbytes(size // 2).hex()
    needed = "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = {
        f"{name}.py": f"CONTENT = {content!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(file, text)
    return wheel


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    """Three wheels, the second of which needs the first."""
    folder = tmp_path / "wheels"
    return [
        write_wheel(folder, "aaa"),
        write_wheel(folder, "bbb", ("aaa>=1", "colour ; sys_platform == 'win32'", "paint ; extra == 'all'")),
        write_wheel(folder, "ccc", size=300),
    ]


@pytest.fixture
def parts(wheels: list[Path], tmp_path: Path) -> Path:
    """The folder of their parts."""
    split(wheels, tmp_path / "parts", PART)
    return tmp_path / "parts"


def test_parts_are_no_larger_than_they_may_be(parts: Path, wheels: list[Path]) -> None:
    sizes = [part.stat().st_size for part in sorted(parts.glob("part-*"))]
    assert len(sizes) > 2 and sizes[:-1] == [PART] * (len(sizes) - 1) and 0 < sizes[-1] <= PART
    assert sum(sizes) == sum(wheel.stat().st_size for wheel in wheels)


def test_parts_come_in_any_order_and_are_asked_for_until_all_are_there(
    parts: Path, wheels: list[Path], tmp_path: Path
) -> None:
    store, call = tmp_path / "store", tmp_path / "call"
    names = sorted(part.name for part in parts.glob("part-*"))
    left = list(names)
    for name in reversed(names):
        # A call carries the manifest and one part.
        call.mkdir()
        for file in (MANIFEST, name):
            (call / file).write_bytes((parts / file).read_bytes())
        left.remove(name)
        assert receive(call, store) == left
        (call / name).unlink()
        (call / MANIFEST).unlink()
        call.rmdir()
    (tmp_path / "joined").mkdir()
    joined = join(store, tmp_path / "joined")
    assert [wheel.name for wheel in joined] == [wheel.name for wheel in wheels]
    assert [wheel.read_bytes() for wheel in joined] == [wheel.read_bytes() for wheel in wheels]


def test_a_damaged_part_is_refused_and_asked_for_again(parts: Path, tmp_path: Path) -> None:
    good = (parts / "part-01").read_bytes()
    (parts / "part-01").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(WheelsError, match="part-01: does not have the manifest's sha256"):
        receive(parts, tmp_path / "store")
    assert "part-01" in missing(parts, tmp_path / "store")
    with pytest.raises(WheelsError, match=r"part-01.* missing; carry them"):
        join(tmp_path / "store", tmp_path)
    (parts / "part-01").write_bytes(good)
    assert receive(parts, tmp_path / "store") == []


def test_a_part_that_was_damaged_in_the_store_is_copied_again(parts: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    receive(parts, store)
    (store / "part-00").write_bytes(b"half")
    assert missing(store, store) == ["part-00"]
    assert receive(parts, store) == []


def test_packing_again_changes_nothing_and_other_wheels_change_all(
    parts: Path, wheels: list[Path], tmp_path: Path
) -> None:
    times = {file: file.stat().st_mtime_ns for file in parts.iterdir()}
    split(wheels, parts, PART)
    assert {file: file.stat().st_mtime_ns for file in parts.iterdir()} == times
    store = tmp_path / "store"
    assert receive(parts, store) == []
    more = [*wheels, write_wheel(tmp_path / "wheels", "ddd")]
    manifest = split(more, parts, PART)
    assert [wheel["name"] for wheel in manifest["wheels"]][-1] == "ddd-1.0-py3-none-any.whl"
    # The store of the earlier wheels is not mixed with the later ones.
    (parts / "part-00").unlink()
    assert receive(parts, store) == ["part-00"]


def test_what_a_wheel_needs_is_packed_or_there(wheels: list[Path]) -> None:
    check_needs(wheels, set())
    with pytest.raises(WheelsError, match=r"neither packed nor there: aaa \(for bbb\)"):
        check_needs(wheels[1:], set())
    check_needs(wheels[1:], {"AAA"})


def test_two_versions_of_a_package_are_refused(wheels: list[Path]) -> None:
    twice = wheels[0].rename(wheels[0].with_name("aaa-2.0-py3-none-any.whl"))
    with pytest.raises(WheelsError, match="aaa: several versions"):
        check_needs([twice, write_wheel(twice.parent, "aaa")], set())


def test_a_part_fits_beside_the_working_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert carried_part_bytes(tmp_path) == gpu_wheels.MAX_PART_BYTES <= 60_000_000
    (tmp_path / "large").write_bytes(bytes(30_000_000))
    assert carried_part_bytes(tmp_path) == gpu_wheels.CARRIED_BYTES - gpu_wheels.RESERVE - 30_000_000
    (tmp_path / ".gitignore").write_text("large\n")
    assert carried_part_bytes(tmp_path) > 59_000_000
    monkeypatch.setattr(gpu_wheels, "CARRIED_BYTES", 4_000_000)
    with pytest.raises(WheelsError, match="its files take 0 MB of the 4 MB"):
        carried_part_bytes(tmp_path)


def test_without_a_manifest_nothing_is_received(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["receive", str(tmp_path), "--store", str(tmp_path / "store")]) == 2
    assert "carry the manifest with every part" in capsys.readouterr().err


@pytest.mark.slow
def test_wheels_are_installed_in_an_environment_of_their_own(parts: Path, tmp_path: Path) -> None:
    """By the script as a file, on a Python that has nothing but pip."""
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    script = [str(python), "-I", str(ROOT / "benchmarks" / "gpu_wheels.py")]
    store, site = tmp_path / "store", tmp_path / "site"

    def run(*arguments: str) -> str:
        done = subprocess.run([*script, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("receive", str(parts), "--store", str(store)) == "all parts are there\n"
    options = ("install", "--store", str(store), "--target", str(site))
    assert run(*options) == f"{site}: installed\n"
    assert run(*options) == f"{site}: was installed before\n"
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import aaa, bbb; print(len(bbb.CONTENT))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "17000\n"


def test_an_install_without_all_parts_leaves_nothing(parts: Path, tmp_path: Path) -> None:
    (parts / "part-00").unlink()
    store, site = tmp_path / "store", tmp_path / "site"
    receive(parts, store)
    with pytest.raises(WheelsError, match="part-00 missing"):
        install(store, site)
    assert not site.exists()
    assert json.loads((store / MANIFEST).read_text())["parts"]


def test_the_script_needs_no_other_module_of_ours() -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "gpu_wheels.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "receive" in done.stdout


def test_the_command_packs_what_pip_downloads(
    wheels: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels[0].parent))
    folder = tmp_path / "packed"
    command = ["pack", "--folder", str(folder), "--python", "3.13", "--part-mb", "0.01", "--only", "bbb"]
    assert main(command) == 2
    assert "neither packed nor there: aaa (for bbb)" in capsys.readouterr().err
    # A wheel for that version of Python alone.
    wheels[0].rename(wheels[0].with_name("aaa-1.0-cp313-cp313-manylinux_2_28_x86_64.whl"))
    assert main([*command, "--also", "aaa"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 wheels in 4 parts"
    receive(folder / "parts", tmp_path / "store")
    joined = join(tmp_path / "store", tmp_path)
    assert [wheel.name.split("-")[2] for wheel in joined] == ["cp313", "py3"]
