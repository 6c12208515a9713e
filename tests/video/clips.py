"""Clips that the tests make with PyAV, and what a clip holds."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TIME_BASE = Fraction(1, 600)
RATE = 25
SAMPLE_RATE = 16_000
# Red, green and blue in turn, as `fakes.engines` knows them.
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], dtype=np.uint8)


def plain(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame of one colour."""
    return np.broadcast_to(COLOURS[number % 3], (height, width, 3)).copy()


def plains(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames of the colours in turn."""
    return [plain(number, height, width) for number in range(count)]


def marked(height: int = 48, width: int = 64) -> np.ndarray:
    """A black frame whose top left corner is white."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[: height // 3, : width // 3] = 255
    return image


def write_clip(
    path: Path,
    images: Sequence[np.ndarray],
    times: Sequence[int] | None = None,
    codec: str = "libx264",
    audio: str | None = None,
    container: dict[str, str] | None = None,
    start_s: int = 0,
) -> Path:
    """Encode images at `times` in units of `TIME_BASE`, by default 25 a second.

    `audio` is an encoder for a tone as long as the images; `container` are options of the container. Both
    streams start at `start_s` seconds.
    """
    with av.open(str(path), "w", options=container or {}) as file:
        stream: Any = file.add_stream(codec, rate=RATE)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        if codec == "libx264":
            stream.options = {"crf": "10"}
        tone: Any = file.add_stream(audio, rate=SAMPLE_RATE) if audio else None
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = times[number] if times else round((number / RATE + start_s) / TIME_BASE)
            frame.time_base = TIME_BASE
            file.mux(stream.encode(frame))
        if tone:
            for start in range(0, len(images) * SAMPLE_RATE // RATE, 1024):
                wave = np.sin(np.arange(start, start + 1024) / 20).astype(np.float32)
                sound = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
                sound.sample_rate, sound.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
                sound.pts = start + start_s * SAMPLE_RATE
                file.mux(tone.encode(sound))
            file.mux(tone.encode(None))
        file.mux(stream.encode(None))
    return path


def packets(path: Path, kind: str) -> list[Any]:
    """The packets of all streams of one kind."""
    with av.open(str(path)) as file:
        streams = [stream for stream in file.streams if stream.type == kind]
        # Of no streams it would be all packets.
        return [packet for packet in file.demux(streams) if packet.size] if streams else []


def times(path: Path) -> list[float]:
    """Presentation times of a video's frames in seconds."""
    with av.open(str(path)) as file:
        frames: list[Any] = list(file.decode(video=0))
        return [float(frame.pts * frame.time_base) for frame in frames]


def images(path: Path) -> list[np.ndarray]:
    """Frames of a video."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def changed(path: Path, old: bytes, new: bytes, target: Path) -> Path:
    """A copy with some bytes replaced, all of them of the same length."""
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    target.write_bytes(data.replace(old, new))
    return target


def broken(path: Path, numbers: Sequence[int], target: Path) -> Path:
    """A copy in which the packets of these video frames, in decoding order, hold noise."""
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(0)
    video = packets(path, "video")
    for number in numbers:
        packet = video[number]
        # The length before each unit stays, since it is the decoder that has to notice.
        size = packet.size - 4
        data[packet.pos + 4 : packet.pos + 4 + size] = noise.integers(0, 256, size, np.uint8).tobytes()
    target.write_bytes(data)
    return target
