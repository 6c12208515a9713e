"""Images of every kind, good and bad."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sed_trt.errors import InputError
from sed_trt.runtime.images import load_image, resize_short_side, short_side_size

GRADIENT = np.linspace(0, 255, 8 * 12 * 3).reshape(8, 12, 3).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def huge_png(path: Path, width: int, height: int) -> Path:
    """A PNG of that size with next to no data behind its header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def test_path_text_image_and_array_agree(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GRADIENT))
    for source in (path, str(path), Image.fromarray(GRADIENT), GRADIENT):
        loaded = load_image(source)
        assert loaded.dtype == np.uint8
        assert loaded.flags.c_contiguous
        assert np.array_equal(loaded, GRADIENT)


def test_reversed_array_is_made_contiguous() -> None:
    assert load_image(GRADIENT[::-1]).flags.c_contiguous


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "turned.png", Image.fromarray(GRADIENT), exif=exif)
    assert np.array_equal(load_image(path), np.rot90(GRADIENT, -1))


def test_cmyk(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.tif", Image.new("CMYK", (3, 2), (0, 255, 255, 0)))
    assert load_image(path).tolist() == [[[255, 0, 0]] * 3] * 2


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    path = saved(tmp_path / "deep.png", Image.fromarray(deep))
    assert load_image(path)[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_32_bit_grey_within_16_bits(tmp_path: Path) -> None:
    path = saved(tmp_path / "deep.tif", Image.fromarray(np.array([[0, 65535]], dtype=np.int32)))
    assert load_image(path)[0].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("values", [np.array([[0, 70000]], np.int32), np.array([[0.5, 1.0]], np.float32)])
def test_deeper_grey_is_refused(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="16-bit grey"):
        load_image(Image.fromarray(values))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_shown_on_white(mode: str, tmp_path: Path) -> None:
    clear = Image.new(mode, (2, 2), (0,) * len(mode))
    assert (load_image(saved(tmp_path / "clear.png", clear)) == 255).all()


def test_transparent_palette_is_shown_on_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    path = saved(tmp_path / "p.png", image, transparency=0)
    assert load_image(path)[0].tolist() == [[255, 255, 255], [40, 50, 60]]


@pytest.mark.parametrize(("mode", "value"), [("L", 7), ("1", 1)])
def test_grey_and_bilevel(mode: str, value: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "g.png", Image.new(mode, (4, 3), value))
    assert (load_image(path) == (7 if mode == "L" else 255)).all()
    assert load_image(path).shape == (3, 4, 3)


def test_one_pixel(tmp_path: Path) -> None:
    path = saved(tmp_path / "one.png", Image.new("RGB", (1, 1), (1, 2, 3)))
    assert load_image(path).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("form", ["png", "jpg", "webp", "bmp", "gif", "tif"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated_file(form: str, part: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"cut.{form}", Image.fromarray(noise))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError, match=f"cut.{form}: "):
        load_image(path)


def test_no_image(tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("no image")
    with pytest.raises(InputError, match=r"text\.jpg: is not an image"):
        load_image(path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.jpg"
    path.touch()
    with pytest.raises(InputError, match="0 bytes"):
        load_image(path)


def test_folder_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(InputError, match=r"absent\.png: no such file"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match="no such file"):
        load_image("nul\0byte.png")


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_001, 10_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_image_is_refused_undecoded(size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="100 million pixels"):
        load_image(huge_png(tmp_path / "huge.png", *size))


def test_huge_image_below_the_limit_raises_no_pillow_warning(tmp_path: Path) -> None:
    path = huge_png(tmp_path / "large.png", 9_990, 10_000)
    code = (
        "from sed_trt.runtime.images import load_image\n"
        f"try: load_image({str(path)!r})\n"
        "except ValueError: pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_wrong_arrays(array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected uint8 \(H, W, 3\)"):
        load_image(array)


def test_wrong_types() -> None:
    with pytest.raises(InputError, match="is a BytesIO, expected"):
        load_image(io.BytesIO())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (640, 853)),
        ((640, 480), (853, 640)),
        ((640, 640), (640, 640)),
        ((1, 1), (640, 640)),
        ((100, 1000), (256, 2560)),
        ((1, 100_000), (1, 2560)),
        ((2160, 3840), (640, 1138)),
    ],
)
def test_short_side_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert short_side_size(*size, 640) == expected


def test_resize_is_pillows_bilinear() -> None:
    expected = np.asarray(Image.fromarray(GRADIENT).resize((6, 4), Image.Resampling.BILINEAR))
    assert np.array_equal(resize_short_side(GRADIENT, 4), expected)
    assert resize_short_side(GRADIENT, None) is GRADIENT


@pytest.mark.parametrize("short_side", [0, -1, 2561])
def test_short_side_out_of_range(short_side: int) -> None:
    with pytest.raises(InputError, match="short_side"):
        resize_short_side(GRADIENT, short_side)
