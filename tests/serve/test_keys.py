"""API keys, other web sites, and what browsers are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sed_trt.errors import InputError
from sed_trt.serve.settings import KEYS_VARIABLE, Settings, check_exposure, is_loopback, read_api_keys
from sed_trt.tests.fakes.engines import quarters
from sed_trt.tests.fakes.images import png_bytes
from sed_trt.tests.serve.conftest import Client, Serving

FIRST, SECOND = "first-key-0123456789", "second-key-0123456789"
OPEN = ["/healthz", "/readyz", "/docs", "/docs.css", "/openapi.json", "/v2/health/live", "/v2/health/ready"]
CLOSED = [
    "/v1/bundles",
    "/v1/vocabularies",
    "/v1/examples",
    "/metrics",
    "/v2",
    "/v2/models/colours",
    "/nothing",
]


@pytest.fixture(scope="module")
def guarded(serving: Serving) -> Iterator[Client]:
    """A server with two keys, which pages of one other web site may use."""
    options = {"keys": (FIRST, SECOND), "origins": ("https://example.org",)}
    with serving(server=options) as client:
        yield client


@pytest.mark.parametrize("path", OPEN)
def test_some_paths_need_no_key(guarded: Client, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": FIRST[:-1]},
        {"X-API-Key": FIRST + "x"},
        {"Authorization": f"Basic {FIRST}"},
        {"Authorization": "Bearer"},
    ],
)
def test_the_others_need_one(guarded: Client, path: str, headers: dict[str, str]) -> None:
    response = guarded.get(path, headers=headers)
    assert response.status_code == 401
    assert response.json() == {"error": "API key: is missing or unknown; send one in the header X-API-Key"}
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_key_of_any_bytes_is_refused_as_others_are(guarded: Client) -> None:
    assert guarded.get("/v1/bundles", headers=[(b"X-API-Key", b"cl\xe9")]).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"X-API-Key": FIRST}, {"X-API-Key": SECOND}, {"Authorization": f"Bearer {SECOND}"}]
)
def test_each_key_opens_all(guarded: Client, headers: dict[str, str]) -> None:
    assert guarded.get("/v1/bundles", headers=headers).status_code == 200
    assert guarded.get("/nothing", headers=headers).status_code == 404
    query = {"categories": "red, blue"}
    image = png_bytes(quarters())
    assert guarded.post("/v1/segment", content=image, params=query).status_code == 401
    assert guarded.post("/v1/segment", content=image, params=query, headers=headers).status_code == 200


def test_pages_of_a_named_site_may_use_the_server(guarded: Client) -> None:
    asked = {
        "Origin": "https://example.org",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "x-api-key",
    }
    # A browser asks before it sends the key.
    allowed = guarded.options("/v1/vocabularies/mine", headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://example.org"
    asked["Origin"] = "https://example.com"
    refused = guarded.options("/v1/vocabularies/mine", headers=asked)
    assert "Access-Control-Allow-Origin" not in refused.headers


def test_other_sites_may_not(client: Client) -> None:
    response = client.get("/v1/bundles", headers={"Origin": "https://example.org"})
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_browsers_are_told_to_load_nothing_from_elsewhere(guarded: Client) -> None:
    for path in ("/docs", "/v1/bundles", "/healthz"):
        headers = guarded.get(path).headers
        assert headers["Content-Security-Policy"].startswith(
            "default-src 'self'; img-src 'self' blob: data:;"
        )
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert "server" not in headers


def test_the_description_names_every_route_and_needs_no_network(guarded: Client) -> None:
    page = guarded.get("/docs").text
    paths = guarded.get("/openapi.json").json()["paths"]
    assert {
        "/v1/segment",
        "/v1/images",
        "/v1/vocabularies/{name}",
        "/v2/models/{model}/infer",
    } <= paths.keys()
    for path in paths:
        assert path in page
    assert "<script" not in page
    assert "//" not in page.replace("<!doctype html>", "")
    assert guarded.get("/docs.css").headers["Content-Type"].startswith("text/css")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.1", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_other_machines_need_keys(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    check_exposure(host, [FIRST])
    if expected:
        check_exposure(host, [])
    else:
        with pytest.raises(InputError, match="needs API keys; give --api-keys FILE"):
            check_exposure(host, [])


def test_keys_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, "not-these-0123456789")
    file = tmp_path / "keys"
    file.write_text(f"# of the page\n{FIRST}\n\n  {SECOND}  \n")
    assert read_api_keys(file) == (FIRST, SECOND)


def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    assert read_api_keys(None) == ()
    monkeypatch.setenv(KEYS_VARIABLE, f"{FIRST}, {SECOND}")
    assert read_api_keys(None) == (FIRST, SECOND)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "holds no API key"),
        ("# none\n", "holds no API key"),
        (f"{FIRST}\nshort\n", "API key 2 is unfit"),
        ("schlüssel-0123456789", "API key 1 is unfit"),
        ("with\ta-tab-0123456789", "API key 1 is unfit"),
    ],
)
def test_unfit_keys_are_refused_and_not_shown(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(InputError, match=expected) as caught:
        read_api_keys(file)
    assert not any(word in str(caught.value) for word in ("short", "0123456789"))


def test_a_missing_file_of_keys_is_no_server_without_keys(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a list of API keys"):
        read_api_keys(tmp_path / "keys")


@pytest.mark.parametrize("name", ["queue", "max_bytes", "timeout_s", "batch", "batch_wait_ms", "drain_s"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: -1 is too small"):
        Settings(**{name: -1})
