"""A data set: three splits of raw examples, and what kind each of their fields is."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Image:
    """uint8 [H, W, C]. A size that differs between examples is 0; such images come as the bytes of their files."""

    shape: tuple

    @property
    def encoded(self):
        return 0 in self.shape[:2]


@dataclasses.dataclass(frozen=True)
class Label:
    """One of the named classes, as its number."""

    names: tuple


@dataclasses.dataclass(frozen=True)
class Vector:
    """float32 [size]."""

    size: int


@dataclasses.dataclass(frozen=True)
class Number:
    """float32 scalar."""


@dataclasses.dataclass(frozen=True)
class Text:
    """A UTF-8 string.

    language: its code, if that is known. tokenizer: the data set's own, else None. length: tokens of its longest text,
    the end included, if the data set has a tokenizer.
    """

    language: str = ''
    tokenizer: Any = None
    length: int = 0


@dataclasses.dataclass(frozen=True)
class Answers:
    """string [most]: right answers, as they stand in a text; '' behind them."""

    most: int


@dataclasses.dataclass(frozen=True)
class Offsets:
    """int64 [most]: the byte of a text at which each of its answers starts; -1 behind them."""

    most: int


@dataclasses.dataclass(frozen=True)
class Boxes:
    """float32 [most, 6]: x0, y0, x1, y1, class, ignored; one row per object of the image.

    Corners are in pixels of the image, upright: x to the right, y down, 0 at its left and upper edge, x1 and y1 just
    outside the object, so that its width is x1 - x0. Every box lies in its image and has an area. class: the number of
    one of `names`. ignored: 1 for an object that is no target in training, and in evaluation neither has to be found
    nor is wrong to find (COCO's `iscrowd`, Pascal VOC's `difficult`), else 0. Rows without an object, PADDING, come
    last.

    most: objects in the image that has most of them, at least 1.
    """

    PADDING = (0., 0., 0., 0., -1., 0.)
    names: tuple
    most: int


@dataclasses.dataclass(frozen=True)
class Mask:
    """uint8 [H, W]: the class of each pixel, the number of one of `names`; `void` where it has none.

    shape: (H, W). A size that differs between examples is 0; such masks come as the bytes of PNG files, grey, 8 bits,
    with the same numbers.
    largest: (H, W) that no mask exceeds, where sizes differ and that is known.
    """

    void = 255
    names: tuple
    shape: tuple
    largest: tuple = (0, 0)

    @property
    def encoded(self):
        return 0 in self.shape


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Knows no model, no tokenizer that is trained, and no size that a model wants.

    train, validation, test: sources, see source.py. fields: {name: kind of field}, what a source's `gather` gives.
    origin: where it was read from, if the user may want to know.
    """

    name: str
    train: Any
    validation: Any
    test: Any
    fields: dict
    origin: str = ''

    def split(self, name):
        return {'train': self.train, 'validation': self.validation, 'test': self.test}[name]

    @property
    def fingerprint(self):
        return '-'.join(source.fingerprint for source in (self.train, self.validation, self.test))

    def of_kind(self, kind):
        """[names] of the fields of a kind."""
        return [name for name, field in self.fields.items() if isinstance(field, kind)]

    def __str__(self):
        sizes = (f'{self.name}: {self.train.num_examples:,} train, {self.validation.num_examples:,} validation, '
                 f'{self.test.num_examples:,} test')
        return f'{sizes}, from {self.origin}' if self.origin else sizes
