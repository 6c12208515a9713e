"""Lines of errors hold no path of the server."""

import pytest

from sed_trt.serve.http_errors import public_line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/srv/models/b/scout.onnx: cannot run (x); use less", "scout.onnx: cannot run (x); use less"),
        ("demo/bundle/scout.onnx: was altered", "scout.onnx: was altered"),
        ("see ../cache/text/a.sqlite or ~/x/y.txt", "see a.sqlite or y.txt"),
        (r"C:\models\b\scout.onnx: is missing", "scout.onnx: is missing"),
        ("it expects /srv/models/b, /srv/models/c/", "it expects b, c"),
        ("category 2, 'sky/cloud', is a duplicate", "category 2, 'sky/cloud', is a duplicate"),
        ("image: is 3 x 4, expected 1 / 2", "image: is 3 x 4, expected 1 / 2"),
    ],
)
def test_only_the_last_part_of_a_path_is_left(line: str, expected: str) -> None:
    assert public_line(line, ["demo/bundle"]) == expected
