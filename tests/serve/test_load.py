"""Busy servers: batches, 429, clients that leave, timeouts, new vocabularies, and the end of a server."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from sed_trt.errors import InputError
from sed_trt.runtime import Segmenter
from sed_trt.serve import owner
from sed_trt.serve.run import Server
from sed_trt.serve.settings import Settings
from sed_trt.tests.fakes.engines import quarters
from sed_trt.tests.fakes.images import png_bytes
from sed_trt.tests.serve.conftest import PATIENCE_S, Client, Serving, eventually, running

IMAGE = png_bytes(quarters())
NAMES = {"categories": "red, green, blue, white", "short_side": "0"}


def in_threads(count: int, send: Callable[[], httpx.Response]) -> list[Future[httpx.Response]]:
    """Requests that are under way at a time."""
    pool = ThreadPoolExecutor(count)
    futures = [pool.submit(send) for _ in range(count)]
    pool.shutdown(wait=False)
    return futures


def segment(client: Client, **query: str) -> httpx.Response:
    """The answer to one image."""
    return client.post("/v1/segment", content=IMAGE, params=NAMES | query)


def in_flight(client: Client) -> int:
    """Requests with an image that the server works on."""
    return client.server.service.owner(None).images.taken


def metric(client: Client, line: str) -> float:
    """The value of the metric whose line begins so."""
    (value,) = (
        each.removeprefix(line)
        for each in client.get("/metrics").text.splitlines()
        if each.startswith(f"{line} ")
    )
    return float(value)


def test_images_that_wait_are_encoded_together(serving: Serving) -> None:
    with serving(batch=4, queue=8) as client:
        assert segment(client).status_code == 200
        client.forget_runs()
        stage = client.stage("image")
        stage.gate.clear()
        first = in_threads(1, lambda: segment(client))
        assert stage.entered.acquire(timeout=PATIENCE_S)
        others = in_threads(6, lambda: segment(client))
        waiting = 'sed_trt_queued_images{bundle="colours",step="encode"}'
        eventually(lambda: metric(client, waiting) == 6)
        stage.gate.set()
        answers = [future.result(PATIENCE_S) for future in first + others]
        assert [answer.status_code for answer in answers] == [200] * 7
        assert len({answer.json()["labels"]["data"] for answer in answers}) == 1
        assert [shapes["pixels"][0] for shapes in stage.shapes] == [1, 4, 2]


def test_a_full_queue_answers_429_until_there_is_room(serving: Serving) -> None:
    with serving(queue=2) as client:
        assert segment(client).status_code == 200
        client.stage("decode2").gate.clear()
        accepted = in_threads(2, lambda: segment(client))
        eventually(lambda: in_flight(client) == 2)
        for send in (
            lambda: segment(client),
            lambda: client.post("/v1/images", content=IMAGE),
        ):
            refused = send()
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) >= 1
            assert "busy" in refused.json()["error"]
        assert metric(client, 'sed_trt_rejected_total{queue="images"}') == 2
        client.stage("decode2").gate.set()
        assert [future.result(PATIENCE_S).status_code for future in accepted] == [200, 200]
        assert segment(client).status_code == 200
        assert in_flight(client) == 0


def test_under_overload_every_answer_is_200_or_429(serving: Serving) -> None:
    with serving(queue=3) as client, ThreadPoolExecutor(12) as pool:
        futures = [pool.submit(segment, client) for _ in range(120)]
        answers = [future.result(PATIENCE_S) for future in futures]
        assert {answer.status_code for answer in answers} <= {200, 429}
        accepted = [answer for answer in answers if answer.status_code == 200]
        assert accepted
        assert len({answer.json()["labels"]["data"] for answer in accepted}) == 1
        assert in_flight(client) == 0


def test_work_of_a_client_that_is_gone_is_dropped(serving: Serving) -> None:
    with serving() as client:
        assert segment(client).status_code == 200
        client.forget_runs()
        stage = client.stage("decode1")
        stage.gate.clear()
        (staying,) = in_threads(1, lambda: segment(client))
        assert stage.entered.acquire(timeout=PATIENCE_S)
        with httpx.Client(base_url=client.base_url) as leaving, pytest.raises(httpx.ReadTimeout):
            leaving.post(
                "/v1/segment", content=IMAGE, params=NAMES, timeout=httpx.Timeout(PATIENCE_S, read=0.2)
            )
        eventually(lambda: in_flight(client) == 1)
        assert metric(client, 'sed_trt_abandoned_total{by="client"}') == 1
        stage.gate.set()
        assert staying.result(PATIENCE_S).status_code == 200
        assert segment(client).status_code == 200
        assert len(stage.shapes) == 2


def test_few_large_images_are_worked_on_at_a_time(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as client:
        expected = segment(client).json()["labels"]
        monkeypatch.setattr(owner, "_LARGE", 1000)
        client.forget_runs()
        stage = client.stage("decode1")
        stage.gate.clear()
        answers = in_threads(4, lambda: segment(client))
        for _ in range(2):
            assert stage.entered.acquire(timeout=PATIENCE_S)
        eventually(lambda: metric(client, 'sed_trt_queued_images{bundle="colours",step="large"}') == 2)
        # Of the two that wait nothing is decoded yet.
        assert len(client.stage("pixels").shapes) == 2
        stage.gate.set()
        assert [future.result(PATIENCE_S).json()["labels"] for future in answers] == [expected] * 4
        kept = client.post("/v1/images", content=IMAGE, params={"short_side": "0"}).json()["image"]
        query = {"image_id": kept, "categories": NAMES["categories"]}
        assert client.post("/v1/segment", json=query).json()["labels"] == expected
        # That a large image failed says nothing of the engines once a blank one passes.
        client.stage("label").error = MemoryError()
        assert segment(client).status_code == 500
        client.stage("label").error = None
        assert client.get("/healthz").status_code == 200


def test_a_request_that_takes_too_long_is_given_up(serving: Serving) -> None:
    with serving(timeout_s=1) as client:
        stage = client.stage("scout")
        stage.gate.clear()
        answer = segment(client)
        assert answer.status_code == 503
        assert answer.json()["error"] == "the request took longer than 1 s"
        assert "Retry-After" in answer.headers
        assert in_flight(client) == 0
        stage.gate.set()
        assert segment(client).status_code == 200


def test_known_vocabularies_do_not_wait_for_new_ones(serving: Serving) -> None:
    with serving(vocabularies_waiting=1) as client:
        assert segment(client).status_code == 200
        client.forget_runs()
        text = client.stage("text")
        text.gate.clear()
        (new,) = in_threads(1, lambda: segment(client, categories="grey, blue"))
        assert text.entered.acquire(timeout=PATIENCE_S)
        assert segment(client).status_code == 200
        refused = segment(client, categories="green, blue")
        assert (refused.status_code, "vocabularies" in refused.json()["error"]) == (429, True)
        assert client.put("/v1/vocabularies/mine", json=["green"]).status_code == 429
        assert not new.done()
        text.gate.set()
        assert new.result(PATIENCE_S).json()["names"] == ["grey", "blue"]


def test_the_server_is_ready_after_warm_up_and_the_first_vocabularies(serving: Serving) -> None:
    with serving(wait=False, server={"vocabularies": {"mine": ["red", "blue"]}}) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        assert {"decode2", "label"} <= {
            name for name, stage in client.engines.engines.items() if stage.shapes
        }
        runs = len(client.stage("text").shapes)
        answer = client.post("/v1/segment", content=IMAGE, params={"vocabulary": "mine"})
        assert answer.json()["names"] == ["red", "blue"]
        assert len(client.stage("text").shapes) == runs


def test_a_failure_is_answered_500_and_makes_the_server_unhealthy_while_it_lasts(serving: Serving) -> None:
    with serving() as client:
        assert client.get("/healthz").status_code == 200
        client.stage("decode1").error = RuntimeError("CUDA error 700 in /srv/secret")
        answer = segment(client)
        assert (answer.status_code, answer.json()) == (500, {"error": "the server failed; its log says why"})
        for path in ("/healthz", "/v2/health/live"):
            assert client.get(path).status_code == 503
        client.stage("decode1").error = None
        # A blank image finds out that the engines work again.
        assert client.get("/healthz").status_code == 200
        assert client.get("/v2/health/live").json() == {"live": True}
        assert segment(client).status_code == 200


def test_a_stopping_server_answers_what_is_under_way(serving: Serving) -> None:
    with serving() as client:
        stage = client.stage("decode3")
        stage.gate.clear()
        (under_way,) = in_threads(1, lambda: segment(client))
        eventually(lambda: in_flight(client) == 1)
        client.server.stop()

        def refuses() -> bool:
            try:
                httpx.get(f"{client.server.url}/readyz")
            except httpx.TransportError:
                return True
            return False

        eventually(refuses)
        assert not under_way.done()
        stage.gate.set()
        assert under_way.result(PATIENCE_S).status_code == 200


def test_a_drain_that_takes_too_long_ends(serving: Serving) -> None:
    with serving(drain_s=1) as client:
        stage = client.stage("decode3")
        stage.gate.clear()
        (under_way,) = in_threads(1, lambda: segment(client))
        eventually(lambda: in_flight(client) == 1)
        client.server.stop()
        # The request is answered while its stage still runs.
        answer = under_way.result(PATIENCE_S)
        assert (answer.status_code, answer.json()) == (503, {"error": "the server stops"})
        stage.gate.set()


def test_metrics_tell_what_happened(serving: Serving) -> None:
    with serving() as client:
        for _ in range(2):
            assert segment(client).status_code == 200
        kept = client.post("/v1/images", content=IMAGE).json()["image"]
        assert client.post("/v1/segment", json={"image_id": kept, "categories": ["red"]}).status_code == 200
        assert client.post("/v1/segment", json={"image_id": "x", "categories": ["red"]}).status_code == 404
        expected = {
            'sed_trt_requests_total{method="POST",route="/v1/segment",status="200"}': 3,
            'sed_trt_requests_total{method="POST",route="/v1/segment",status="404"}': 1,
            'sed_trt_request_seconds_count{route="/v1/segment"}': 4,
            'sed_trt_stage_seconds_count{bundle="colours",stage="image"}': 3,
            'sed_trt_stage_seconds_count{bundle="colours",stage="decode3"}': 3,
            'sed_trt_kept_categories_count{bundle="colours",point="2"}': 3,
            'sed_trt_kept_categories_sum{bundle="colours",point="0"}': 9,
            'sed_trt_cache_lookups_total{cache="vocabulary",outcome="hit"}': 1,
            'sed_trt_cache_lookups_total{cache="vocabulary",outcome="miss"}': 2,
            'sed_trt_cache_lookups_total{cache="image",outcome="hit"}': 1,
            'sed_trt_cache_lookups_total{cache="image",outcome="miss"}': 1,
            'sed_trt_encoder_batch_images_count{bundle="colours"}': 3,
            'sed_trt_queue_seconds_count{bundle="colours"}': 3,
            'sed_trt_images_in_flight{bundle="colours"}': 0,
            "sed_trt_images_kept": 1,
            "sed_trt_ready": 1,
        }
        assert {line: metric(client, line) for line in expected} == expected
        assert metric(client, "sed_trt_images_kept_bytes") > 40 * 60 * 3


def test_a_server_whose_stages_do_not_run_ends_with_the_reason(serving: Serving) -> None:
    with serving() as client:
        segmenter: Segmenter = client.server.service.owner(None).segmenter
        client.stage("decode2").error = InputError("stage decode2: the GPU's memory is too small")
        server = Server({"broken": segmenter}, Settings(), port=0, log_level="critical")
        with pytest.raises(InputError, match="memory is too small"):
            server.run()
        client.stage("decode2").error = None
        other = Server({"works": segmenter}, Settings(), port=0, log_level="critical")
        with running(other):
            eventually(lambda: other.service.ready)
