"""`sed-trt serve` as a process, and what it refuses before it starts."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sed_trt.cli.main import main
from sed_trt.tests.paths import ROOT
from sed_trt.tests.serve.conftest import PATIENCE_S, eventually

KEY = "a-key-of-the-test-0123456789"


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command with these arguments, and the address that it prints."""
    command = [sys.executable, "-m", "sed_trt.cli.main", "serve", *arguments, "--port", "0"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The package's parent, wherever the tests run.
        cwd=ROOT.parent,
        env=os.environ | {"SED_TRT_API_KEYS": ""},
    )
    try:
        assert running.stdout is not None
        yield running, running.stdout.readline().split()[0]
    finally:
        running.kill()
        running.communicate(timeout=PATIENCE_S)


def is_ready(url: str) -> bool:
    """Whether the server takes requests."""
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_sigterm_ends_a_server_of_several_bundles_well(tiny_bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "other bundle"
    link.symlink_to(tiny_bundle)
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    arguments = (str(tiny_bundle), str(tiny_bundle), "--api-keys", str(keys), "--backend", "onnxruntime")
    with process(*arguments, "--batch", "1") as (running, url):
        eventually(lambda: is_ready(url))
        assert httpx.get(f"{url}/v1/bundles").status_code == 401
        with httpx.Client(base_url=url, headers={"X-API-Key": KEY}, timeout=PATIENCE_S) as client:
            bundles = client.get("/v1/bundles").json()["bundles"]
            assert [bundle["name"] for bundle in bundles] == [tiny_bundle.name, f"{tiny_bundle.name}-2"]
            assert {bundle["backend"] for bundle in bundles} == {"onnxruntime"}
            examples = client.get("/v1/examples").json()
            assert len(examples["vocabulary"]) > 100
            image = client.get(examples["images"][0]["url"]).content
            query = {"categories": "sky, grass, water", "bundle": f"{tiny_bundle.name}-2"}
            answer = client.post("/v1/segment", content=image, params=query)
            assert answer.json()["bundle"] == f"{tiny_bundle.name}-2"
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE_S) == 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which the command refuses these arguments."""
    assert main(["serve", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sed-trt: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_refusals(
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SED_TRT_API_KEYS", raising=False)
    bundle = str(tiny_bundle)
    assert "needs API keys" in refused(capsys, bundle, "--host", "0.0.0.0")
    assert "cannot be read as a list" in refused(capsys, bundle, "--api-keys", str(tmp_path / "none"))
    assert "no such bundle folder" in refused(capsys, str(tmp_path / "none"))
    assert "no such folder" in refused(capsys, bundle, "--examples", str(tmp_path / "none"))
    assert "queue: 0 is too small" in refused(capsys, bundle, "--queue", "0")
    assert "log level: 'loud' is unknown" in refused(capsys, bundle, "--log-level", "loud")
    assert "neither a file nor a published" in refused(capsys, bundle, "--vocabulary", "mine=none.txt")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1:{port} cannot be listened on" in refused(capsys, bundle, "--port", port)
    assert "cannot be listened on" in refused(
        capsys, bundle, "--host", "nowhere.invalid", "--api-keys", str(_key_file(tmp_path))
    )


def test_a_first_vocabulary_that_does_not_fit_ends_the_server_with_one_line(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "names.txt"
    file.write_text("sky\nSky\n")
    arguments = ["serve", str(tiny_bundle), "--port", "0", "--backend", "onnxruntime"]
    assert main([*arguments, "--vocabulary", f"mine={file}"]) == 2
    assert "is a duplicate" in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_package_is_named_with_its_extra(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "sed_trt.serve.run", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    line = refused(capsys, str(tiny_bundle))
    assert "the package 'uvicorn' is not installed" in line
    assert "'.[serve]'" in line


def _key_file(folder: Path) -> Path:
    file = folder / "keys"
    file.write_text(KEY)
    return file
