"""Pictures within the page are small, and those that are none are refused."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ase_flatten.report.pictures import data_uri, small_data_uri


def png(width: int, height: int, rng: np.random.Generator) -> bytes:
    stream = BytesIO()
    Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def content(uri: str) -> bytes:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(body)


def test_a_large_picture_shrinks_and_keeps_its_shape(rng):
    large = png(2800, 700, rng)
    small = content(small_data_uri(large))
    assert len(small) < len(large) / 4
    with Image.open(BytesIO(small)) as picture:
        assert picture.size == (1400, 350)
    assert content(data_uri(large)) == large


def test_a_small_picture_keeps_its_size(rng):
    with Image.open(BytesIO(content(small_data_uri(png(30, 20, rng))))) as picture:
        assert picture.size == (30, 20)


@pytest.mark.parametrize("damaged", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(damaged):
    with pytest.raises((OSError, ValueError, SyntaxError)):
        small_data_uri(damaged)
