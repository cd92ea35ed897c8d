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
