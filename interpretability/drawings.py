"""What was found in an image, drawn into it, by Pillow (of the extra `vision`)."""

import io
import os

import numpy as np

from errors import UserError
from interpretability.palette import palette

ENDINGS = {'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG', '.webp': 'WEBP', '.bmp': 'BMP'}
OPAQUE = 0.5        # share of a mask's colour in a pixel


def check(path):
    """Raises UserError unless pictures can be written to a file of this name, and Pillow is there."""
    if os.path.splitext(path)[1].lower() not in ENDINGS:
        raise UserError(f'`output` must be a file that ends in one of {", ".join(ENDINGS)}. Received: {path!r}')
    _pillow()


def boxes_drawn(file, boxes, scores, labels):
    """The bytes of an image file, boxes [K][4] in its pixels, [K] scores and [K] labels -> a PIL image."""
    image, ImageDraw = _opened(file), _pillow('ImageDraw')
    names = sorted(set(labels))
    colours = [tuple(map(int, colour)) for colour in palette(len(names) + 1)[1:]]
    draw, width = ImageDraw.Draw(image), max(1, round(max(image.size) / 300))
    for (x0, y0, x1, y1), score, label in zip(boxes, scores, labels, strict=True):
        colour = colours[names.index(label)]
        # The last pixel of a box is the one before its edge.
        draw.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=colour, width=width)
        text, corner = f'{label} {score:.0%}', (x0 + width + 1, y0 + width)
        draw.rectangle(draw.textbbox(corner, text), fill=colour)
        draw.text(corner, text, fill='black' if sum(colour) > 380 else 'white')
    return image


def overlaid(file, mask):
    """The bytes of an image file and uint8 [h, w] -> a PIL image, each pixel with the colour of its class."""
    image = np.asarray(_opened(file), np.float32)
    colours = palette(256)[mask].astype(np.float32)
    return _pillow().fromarray(np.round((1 - OPAQUE) * image + OPAQUE * colours).astype(np.uint8))


def coloured(mask):
    """uint8 [h, w] -> a PIL image of the numbers of the classes, with a palette."""
    image = _pillow().fromarray(mask)
    image.putpalette(palette(256).ravel().tolist())
    return image


def encoded(image, path):
    """A PIL image -> the bytes of a file of this name."""
    file = io.BytesIO()
    image.save(file, ENDINGS[os.path.splitext(path)[1].lower()])
    return file.getvalue()


def _opened(file):
    """Upright, in colour. The first picture of an animation."""
    image = _pillow().open(io.BytesIO(file))
    return _pillow('ImageOps').exif_transpose(image).convert('RGB')


def _pillow(name='Image'):
    try:
        import importlib
        return importlib.import_module(f'PIL.{name}')
    except ImportError:
        raise UserError('`output` needs Pillow: pip install -e ".[vision]"') from None
