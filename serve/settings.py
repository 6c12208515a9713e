"""What a server can be told: its limits and times, and the API keys."""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import InputError
from ..files import read_file

KEYS_VARIABLE = "SED_TRT_API_KEYS"
_MIN_KEY_LENGTH = 16


@dataclass(frozen=True)
class Settings:
    """Limits and times of a server, for each bundle where they count what it works on.

    Attributes:
        max_bytes: of the body of a request.
        max_pixels: of an image, checked in its header before a pixel is decoded.
        max_categories: of a vocabulary.
        max_kept: categories that may be left after a rejection; memory grows with them.
        queue: requests with an image that wait or are computed at a time; further ones are answered 429.
        vocabularies_waiting: requests that wait at a time for a vocabulary to be embedded.
        vocabularies_mb: memory of embedded vocabularies, in megabytes; the one used longest ago goes first.
        images_kept: encoded images that are kept for further requests.
        images_kept_mb: memory of these, in megabytes.
        image_ttl_s: seconds that one of them is kept after its last use.
        batch: images that the encoder takes together at most.
        batch_wait_ms: milliseconds that the first image of a batch waits for others.
        timeout_s: seconds after which a request is given up, and those that its body may take to arrive.
        embed_timeout_s: the same for a request that registers a vocabulary.
        drain_s: seconds that requests under way have to end once the server is told to stop.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 32_000_000
    max_categories: int = 1024
    max_kept: int = 256
    queue: int = 16
    vocabularies_waiting: int = 8
    vocabularies_mb: int = 2048
    images_kept: int = 32
    images_kept_mb: int = 1024
    image_ttl_s: float = 900
    batch: int = 4
    batch_wait_ms: float = 2
    timeout_s: float = 60
    embed_timeout_s: float = 900
    drain_s: float = 30

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("images_kept", "batch_wait_ms") else 1
            if value < least:
                raise InputError(f"{field.name}: {value} is too small, expected at least {least}")


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach a server bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_api_keys(file: Path | None) -> tuple[str, ...]:
    """API keys from a file, one per line, or where none is given from the environment variable, with commas.

    Blank lines and lines that begin with "#" are left out.

    Raises:
        InputError: the file cannot be read, there is no key in it, or a key is short or not ASCII.
    """
    if file is None:
        source, entries = KEYS_VARIABLE, os.environ.get(KEYS_VARIABLE, "").split(",")
    else:
        source = str(file)
        try:
            entries = read_file(file).decode().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{file}: cannot be read as a list of API keys ({error}); check the file"
            ) from error
    keys = tuple(entry.strip() for entry in entries if entry.strip() and not entry.strip().startswith("#"))
    if file is not None and not keys:
        raise InputError(f"{file}: holds no API key, expected one per line")
    for number, key in enumerate(keys, 1):
        # The key itself must not reach a terminal or log.
        if len(key) < _MIN_KEY_LENGTH or not key.isascii() or not key.isprintable():
            raise InputError(
                f"{source}: API key {number} is unfit, expected at least {_MIN_KEY_LENGTH} printable ASCII "
                "characters; make one with `openssl rand -hex 24`"
            )
    return keys


def check_exposure(host: str, keys: Sequence[str]) -> None:
    """Refuse to listen to other machines without API keys.

    Raises:
        InputError: `host` is no loopback address and `keys` is empty.
    """
    if not keys and not is_loopback(host):
        raise InputError(
            f"host: {host} can be reached from other machines, which needs API keys; give --api-keys FILE or "
            f"set {KEYS_VARIABLE}, or listen on 127.0.0.1"
        )
