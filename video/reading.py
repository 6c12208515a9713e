"""Frames of a video file in presentation order, upright, with their times; broken ones do not end it."""

import heapq
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import exists, is_file, is_folder
from .library import library

# Of a file that does not say its frame rate.
_DEFAULT_RATE = Fraction(25)
# Of these every packet is a frame, so that one which the decoder drops without an error is noticed too.
# Others have packets that are never shown.
_FRAME_PER_PACKET = frozenset(("h264", "hevc", "mpeg4", "mjpeg"))


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Attributes:
        number: 0, 1, … in presentation order.
        time: its presentation time in units of the reader's `time_base`, rising from frame to frame.
        picture: the decoded `av.VideoFrame`; None where it could not be decoded.
    """

    number: int
    time: int
    picture: Any


class VideoReader:
    """A video file; for use by one thread at a time, except `rgb`.

    Attributes:
        path: the file.
        width: of an upright frame in pixels.
        height: likewise.
        time_base: seconds that one unit of `Frame.time` stands for.
        start: seconds at which the file starts, which are subtracted from its times; 0 but for transport
            streams, whose clock runs on from file to file.
        rate: frames in a second, on average.
        pixel_aspect: width of a pixel over its height, of an upright frame.
        frames_expected: that the file announces, or that follow from its duration; None without either.
        broken: frames so far that could not be decoded.
        ended_early: why reading ended before the file's end, as one phrase; else None.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and decode its first frame.

        Raises:
            InputError: PyAV is missing; there is no such file, or it is no video that FFmpeg can read; it has
                no video stream, no decoder for it, or no frame that can be decoded.
        """
        self.path = path
        self.broken = 0
        self.ended_early: str | None = None
        self._container = open_input(path)
        try:
            self._stream = self._find_stream()
            self.time_base = Fraction(self._stream.time_base)
            self.start = Fraction(0)
            if self._container.format.flags & library().format.Flags.ts_discont.value:
                self.start = Fraction(self._container.start_time or 0, 1_000_000)
            self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or _DEFAULT_RATE)
            self.frames_expected = self._expected()
            self._frames = self._read()
            first = next(self._frames, None)
            if first is None:
                raise InputError(
                    f"{path}: none of its frames can be decoded ({self.ended_early or 'all are broken'}); "
                    "check that the file is whole"
                )
        except BaseException:
            self._container.close()
            raise
        self._first = first
        # Later frames of another size are scaled to that of the first.
        self._size = {"width": first.picture.width, "height": first.picture.height}
        self._quarter_turns = round(first.picture.rotation / 90) % 4
        aspect = self._stream.codec_context.sample_aspect_ratio
        self.pixel_aspect = Fraction(aspect) if aspect else Fraction(1)
        self.height, self.width = first.picture.height, first.picture.width
        if self._quarter_turns % 2:
            self.height, self.width = self.width, self.height
            self.pixel_aspect = 1 / self.pixel_aspect

    def frames(self) -> Iterator[Frame]:
        """All frames, once."""
        return chain([self._first], self._frames)

    def rgb(self, picture: Any) -> np.ndarray:
        """A frame's picture as uint8 RGB (height, width, 3), upright by the file's rotation."""
        image = picture.to_ndarray(format="rgb24", **self._size)
        return np.ascontiguousarray(np.rot90(image, self._quarter_turns))

    def close(self) -> None:
        """Close the file."""
        self._frames.close()
        self._container.close()

    def _find_stream(self) -> Any:
        # Covers of music files are video streams of one picture.
        streams = [each for each in self._container.streams.video if not _is_cover(each)]
        if not streams:
            others = ", ".join(each.type for each in self._container.streams) or "no streams"
            raise InputError(f"{self.path}: has no video stream ({others}), expected a video file")
        if streams[0].codec_context is None:
            raise InputError(
                f"{self.path}: its video codec is not known to the FFmpeg in PyAV; convert it to H.264 first"
            )
        return streams[0]

    def _expected(self) -> int | None:
        if self._stream.frames:
            return int(self._stream.frames)
        if self._stream.duration:
            return max(1, round(self._stream.duration * self.time_base * self.rate))
        if self._container.duration:
            return max(1, round(Fraction(self._container.duration, 1_000_000) * self.rate))
        return None

    def _read(self) -> Generator[Frame, None, None]:
        number, last = 0, None
        step = max(1, round(1 / (self.rate * self.time_base)))
        start = round(self.start / self.time_base)
        for time, picture in self._pictures():
            time = None if time is None else time - start
            if picture is None:
                self.broken += 1
                # Before the first picture there is nothing that could stand in.
                if time is None or last is None or time <= last:
                    continue
            elif time is None:
                time = 0 if last is None else last + step
            elif last is not None:
                # Containers want rising times, which some files do not have.
                time = max(time, last + 1)
            yield Frame(number, time, picture)
            number, last = number + 1, time

    def _pictures(self) -> Iterator[tuple[int | None, Any]]:
        """Times and pictures in presentation order; the picture is None where it is broken."""
        all_shown = self._stream.codec_context.codec.name in _FRAME_PER_PACKET
        # Times of packets whose frame is still to come, or broke; packets come in decoding order.
        pending: list[int] = []
        for packet in self._packets():
            pictures = self._decode(packet)
            if packet is not None and packet.pts is not None and not packet.is_discard:
                if all_shown or pictures is None:
                    heapq.heappush(pending, packet.pts)
            elif pictures is None:
                yield None, None
            for picture in pictures or ():
                while pending and picture.pts is not None and pending[0] <= picture.pts:
                    time = heapq.heappop(pending)
                    if time != picture.pts:
                        yield time, None
                yield picture.pts, None if picture.is_corrupt else picture
        for time in sorted(pending):
            yield time, None

    def _packets(self) -> Iterator[Any]:
        """The stream's packets, an empty one last, which takes from the decoder what it still holds."""
        error_type = library().error.FFmpegError
        packets = self._container.demux(self._stream)
        read = 0
        try:
            for packet in packets:
                read += bool(packet.size)
                yield packet
        except error_type as error:
            self.ended_early = f"reading ends after {read} frames: {reason(error)}"
            yield None
        else:
            if read < self._stream.frames:
                self.ended_early = f"the file holds {read} of the {self._stream.frames} frames it announces"

    def _decode(self, packet: Any) -> list[Any] | None:
        """The pictures that a packet completes, or None where it is broken."""
        try:
            pictures: list[Any] = self._stream.decode(packet)
        except library().error.FFmpegError:
            return None
        return pictures


def open_input(path: Path) -> Any:
    """The `av.container.InputContainer` of a file.

    Raises:
        InputError: PyAV is missing, there is no such file, or FFmpeg cannot read it.
    """
    av = library()
    if "\0" in str(path) or not exists(path):
        raise InputError(f"{str(path)!r}: no such file, or it cannot be reached; give a video file")
    if is_folder(path):
        raise InputError(f"{path}: is a folder, expected a video file")
    if not is_file(path):
        raise InputError(f"{path}: is a pipe, socket or device, expected a video file")
    try:
        # Without the protocol a name such as "concat:a" would be read as one.
        return av.open(f"file:{path}")
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{path}: is not a video that FFmpeg can read ({reason(error)}); check that the file is whole"
        ) from error


def reason(error: Exception) -> str:
    """What FFmpeg says, without its number and file name."""
    return str(getattr(error, "strerror", None) or error)


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)
