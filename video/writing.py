"""A video file with the frames it is given, at their times, and with the audio of another file."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .library import library
from .reading import VideoReader, open_input, reason

# Encoders in the order in which they are tried, with their options: the first that the container takes and
# that is in PyAV's FFmpeg.
_ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "crf": "30"},
    "mpeg4": {},
}
# Of MPEG-4 part 2, whose times are counted in 16 bits.
_MPEG4_TIME_BASE = Fraction(1, 60_000)
_MPEG4_BITS_PER_PIXEL = 0.2
# FFmpeg's numbers for BT.709 and for the range 16 to 235.
_BT709, _VIDEO_RANGE = 1, 1


class VideoWriter:
    """Encodes frames into a file. Use it as a context; an exception inside leaves the file unfinished.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        audio: "copied", "none" where the source has no audio, or "dropped: " and why.
    """

    def __init__(self, path: Path, name: Path, reader: VideoReader, width: int, height: int) -> None:
        """Open a file whose suffix says the container.

        Args:
            path: to write.
            name: of the file in errors, since `path` may be a temporary one.
            reader: of the source, whose times, rate and audio the file gets.
            width: of the frames in pixels.
            height: likewise.

        Raises:
            InputError: no container has that suffix, or none of the encoders fits it.
        """
        self._path = path
        self._name = name
        self._size = (height, width)
        self._reader = reader
        self._source: Any = None
        self.audio = "none"
        self._open(with_audio=True)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                with suppress(Exception):
                    self._container.close()
        finally:
            if self._source is not None:
                self._source.close()

    def write(self, image: np.ndarray, time: int) -> None:
        """Encode a frame, uint8 RGB (height, width, 3), at `time` in the reader's units; times rise.

        Raises:
            InputError: the file cannot be written.
        """
        av = library()
        height, width = self._size
        if height % 2 or width % 2:
            # Colours are stored for 2 x 2 pixels.
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range=_VIDEO_RANGE)
        seconds = time * self._reader.time_base
        frame.pts = round(seconds / self._time_base)
        frame.time_base = self._time_base
        try:
            self._container.mux(self._stream.encode(frame))
            self._copy_audio(seconds)
        except av.error.FFmpegError as error:
            raise self._not_writable(error) from error

    def _open(self, with_audio: bool) -> None:
        av = library()
        for encoder in _ENCODERS:
            try:
                self._container = av.open(f"file:{self._path}", "w")
            except ValueError as error:
                raise InputError(
                    f"{self._name}: FFmpeg knows no container of this suffix; "
                    "name the output .mp4, .mov, .mkv or .webm"
                ) from error
            try:
                stream = self._container.add_stream(encoder, rate=self._reader.rate)
            except ValueError:
                # The container does not take it, or FFmpeg was built without it.
                self._container.close()
                continue
            break
        else:
            raise InputError(
                f"{self._name}: none of the encoders {', '.join(_ENCODERS)} fits this container; "
                "name the output .mp4, .mov, .mkv or .webm"
            )
        self.encoder = encoder
        self._stream = stream
        self._set_up(stream)
        streams = self._add_audio() if with_audio else {}
        try:
            self._container.start_encoding()
        except av.error.FFmpegError as error:
            with suppress(Exception):
                self._container.close()
            if not streams:
                raise self._not_writable(error) from error
            self._drop_audio(reason(error))
            self._open(with_audio=False)
            return
        self._audio = self._packets(streams)
        self._next_audio = next(self._audio, None)

    def _set_up(self, stream: Any) -> None:
        height, width = (size + size % 2 for size in self._size)
        context = stream.codec_context
        self._time_base = self._reader.time_base
        if self.encoder == "mpeg4":
            if self._time_base.denominator > _MPEG4_TIME_BASE.denominator:
                self._time_base = _MPEG4_TIME_BASE
            context.bit_rate = round(width * height * float(self._reader.rate) * _MPEG4_BITS_PER_PIXEL)
        context.width, context.height = width, height
        context.pix_fmt = "yuv420p"
        context.time_base = self._time_base
        context.sample_aspect_ratio = self._reader.pixel_aspect
        context.options = _ENCODERS[self.encoder]
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _VIDEO_RANGE

    def _add_audio(self) -> dict[int, Any]:
        """Streams of the file by the index of the source's audio stream that each of them copies."""
        if self._source is None:
            # A container of its own: the one with the video is read at another time and by another thread.
            self._source = open_input(self._reader.path)
        streams = {}
        for each in self._source.streams.audio:
            if each.codec_context is None:
                self._drop_audio("its codec is not known to the FFmpeg in PyAV")
                continue
            try:
                streams[each.index] = self._container.add_stream_from_template(each)
            except ValueError as error:
                self._drop_audio(str(error))
        if streams:
            self.audio = "copied"
        return streams

    def _drop_audio(self, why: str) -> None:
        self.audio = f"dropped: {why}"

    def _packets(self, streams: dict[int, Any]) -> Iterator[Any]:
        """Audio packets of the source, ready for the file."""
        if not streams:
            return
        wanted = [self._source.streams[index] for index in streams]
        negative_times = self._container.format.flags & library().format.Flags.ts_negative.value
        try:
            for packet in self._source.demux(wanted):
                if packet.dts is None:
                    continue
                start = round(self._reader.start / packet.time_base)
                packet.dts -= start
                packet.pts = packet.dts if packet.pts is None else packet.pts - start
                # Encoders start a little before 0. Where the container has no such times, all others, those
                # of the frames included, would be moved.
                if packet.dts >= 0 or negative_times:
                    packet.stream = streams[packet.stream_index]
                    yield packet
        except library().error.FFmpegError as error:
            self._drop_audio(f"its end cannot be read ({reason(error)})")

    def _copy_audio(self, until: Fraction | None) -> None:
        """Copy the packets up to a time in seconds, or all that are left."""
        while (packet := self._next_audio) is not None:
            if until is not None and packet.dts * Fraction(packet.time_base) > until:
                return
            try:
                self._container.mux(packet)
            except library().error.FFmpegError as error:
                # What the disk refuses is no fault of the audio.
                if isinstance(error, OSError):
                    raise
                self._drop_audio(f"from {float(packet.dts * packet.time_base):.1f} s on ({reason(error)})")
                self._next_audio = None
                return
            self._next_audio = next(self._audio, None)

    def _finish(self) -> None:
        try:
            self._container.mux(self._stream.encode(None))
            self._copy_audio(None)
            self._container.close()
        except library().error.FFmpegError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: Exception) -> InputError:
        return InputError(
            f"{self._name}: cannot be written ({reason(error)}); choose another place or container"
        )
