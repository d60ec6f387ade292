"""Pictures within the page: PNG files as data URIs, made small."""

import base64
from io import BytesIO

from PIL import Image

_MOST_PIXELS = 1400
"""Width at which the page, up to 44rem wide, is sharp on screens of two pixels per CSS pixel."""


def data_uri(png: bytes) -> str:
    """Return a picture in PNG format as an URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def small_data_uri(png: bytes) -> str:
    """Return a figure as an URI, no wider than the page shows and with 256 colours; raise OSError if it is damaged."""
    with Image.open(BytesIO(png), formats=["PNG"]) as opened:
        picture = opened.convert("RGB")
    if picture.width > _MOST_PIXELS:
        height = round(picture.height * _MOST_PIXELS / picture.width)
        picture = picture.resize((_MOST_PIXELS, max(height, 1)), Image.Resampling.LANCZOS)
    stream = BytesIO()
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return data_uri(stream.getvalue())
