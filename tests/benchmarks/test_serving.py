"""The load test of servers, against a stand-in whose answers are known."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from sed_trt.benchmarks.report.pages import markdown_table
from sed_trt.benchmarks.speed.load import Load, Request, Server, run_load
from sed_trt.benchmarks.speed.serving import measure_serving, summary
from sed_trt.cli.main import main
from sed_trt.errors import InputError

BUNDLE = {"name": "tiny", "preset": "sed-tiny", "precision": "fp32", "backend": "onnxruntime"}


class StandIn(BaseHTTPRequestHandler):
    """Answers the requests that the load test sends."""

    protocol_version = "HTTP/1.1"
    # Statuses of the next segmentations; 200 when there are no more.
    statuses: ClassVar[list[int]] = []
    # What was posted: path, body, key.
    posted: ClassVar[list[tuple[str, bytes, str | None]]] = []
    lock = threading.Lock()

    def do_GET(self) -> None:
        if self.path == "/metrics":
            text = b"# HELP x y\nprocess_resident_memory_bytes 5e+07\nprocess_cpu_seconds_total 1\n"
            self.answer(200, text)
        else:
            self.answer(200, json.dumps({"bundles": [BUNDLE]}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            self.posted.append((self.path, body, self.headers["X-API-Key"]))
            status = self.statuses.pop(0) if self.statuses and "segment" in self.path else 200
        if status == 0:
            self.close_connection = True
            return
        content: dict[str, Any] = {"width": 4, "height": 3, "names": ["sky"], "image": "some-id"}
        if status != 200:
            content = {"error": f"refused with {status}"}
        self.answer(status, json.dumps(content).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def url() -> Iterator[str]:
    StandIn.statuses.clear()
    StandIn.posted.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


REQUEST = Request("POST", "/v1/segment", b"x")


@pytest.mark.parametrize("load", [Load(clients=3), Load(rate=500.0)])
def test_every_request_is_sent_once_and_counted(url: str, load: Load) -> None:
    StandIn.statuses[:] = [200, 429, 503, 429]
    done: list[int] = []
    counted = summary(run_load(Server.at(url), REQUEST, load, 12, done.append))
    assert len(StandIn.posted) == 12 and done == list(range(1, 13))
    assert (counted["accepted"], counted["rejected"], counted["other_statuses"]) == (9, 2, {"503": 1})
    assert counted["failures"] == {}
    assert counted["p50_ms"] <= counted["p90_ms"] <= counted["p99_ms"]


def test_a_request_without_an_answer_is_a_failure(url: str) -> None:
    StandIn.statuses[:] = [0]
    counted = summary(run_load(Server.at(url), REQUEST, Load(clients=1), 3))
    assert counted["accepted"] == 2 and sum(counted["failures"].values()) == 1


def test_requests_of_an_open_loop_do_not_wait_for_each_other(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are under way before the first is answered."""
    together = threading.Barrier(8, timeout=60)
    plain = StandIn.do_POST

    def all_at_once(handler: StandIn) -> None:
        together.wait()
        plain(handler)

    monkeypatch.setattr(StandIn, "do_POST", all_at_once)
    counted = summary(run_load(Server.at(url), REQUEST, Load(rate=1000.0), 8))
    assert counted["accepted"] == 8


def test_results_and_table(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "serving.json"
    loads = ["--clients", "1,2", "--rate", "40,4x", "--requests", "6"]
    assert main(["bench", "serve", url, *loads, "--categories", "sky", "-o", str(output)]) == 0
    content = json.loads(output.read_text())
    assert content["kind"] == "serving" and content["preset"] == "sed-tiny"
    assert content["image"] == [4, 3] and content["categories"] == 1
    rows = content["results"]
    assert [row["clients"] for row in rows] == [1, 2, None, None]
    assert rows[2]["rate"] == 40
    assert rows[3]["rate"] == pytest.approx(4 * max(rows[0]["throughput"], rows[1]["throughput"]))
    assert all(row["accepted"] == 6 and row["memory_mb"]["peak"] == 50 for row in rows)
    # The first request of each kind makes the server embed the names.
    assert len(StandIn.posted) == 1 + 4 * 6
    path, body, key = StandIn.posted[0]
    assert parse_qs(urlsplit(path).query) == {"bundle": ["tiny"], "output": ["labels"], "categories": ["sky"]}
    assert body.startswith(b"\x89PNG") and key is None
    assert "load on a server" in capsys.readouterr().out
    table = markdown_table([content])
    assert "| 2 clients | 6 | 6 | 0 |" in table and "(4x)" in table


def test_an_image_that_is_kept_is_sent_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SED_TRT_API_KEY", "secret")
    assert (
        main(
            [
                "bench",
                "serve",
                url,
                "--encoded",
                "--vocabulary",
                "ade150",
                "--clients",
                "1",
                "--requests",
                "2",
            ]
        )
        == 0
    )
    paths = [urlsplit(path).path for path, _, _ in StandIn.posted]
    assert paths == ["/v1/images", *3 * ["/v1/segment"]]
    content = json.loads(StandIn.posted[-1][1])
    assert content == {"bundle": "tiny", "output": "labels", "vocabulary": "ade150", "image_id": "some-id"}
    assert {key for _, _, key in StandIn.posted} == {"secret"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http://192.0.2.1:8000"], "is another machine"),
        (["https://127.0.0.1"], "is no address of a server"),
        (["http://127.0.0.1:99999"], "has a bad port"),
        (["http://127.0.0.1:9", "--rate", "fast"], "'fast' is unknown"),
        (["http://127.0.0.1:9", "--clients", "0"], "'0' is unknown"),
        (["http://127.0.0.1:9"], "cannot be reached"),
        (["http://127.0.0.1:9", "--categories", "sky", "--vocabulary", "coco"], "one of --categories"),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "serve", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_what_the_server_refuses_ends_the_test_with_its_line(url: str) -> None:
    StandIn.statuses[:] = [422]
    with pytest.raises(InputError, match=r"with 422 \(refused with 422\)"):
        measure_serving(Server.at(url), [Load(clients=1)], 1, lambda *_: None)


def test_a_multiple_of_nothing_is_refused(url: str) -> None:
    StandIn.statuses[:] = [200, 429]
    assert main(["bench", "serve", url, "--clients", "1", "--requests", "1", "--rate", "4x"]) == 2


def test_an_unknown_bundle_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "serve", url, "--bundle", "large"]) == 2
    assert "choose one of tiny" in capsys.readouterr().err
