"""What a section of a recipe is made of: typed fields, each with its help text and its bounds. No TensorFlow."""

import dataclasses

from errors import UserError, lookup


def field(default, help, *, least=None, above=None, most=None, below=None, choices=None, items=None):
    """A field of a Section; its type is the annotation.

    Args:
        default: None means that whoever is given the field chooses; only then is None a legal value.
        help: what --help says, without type, choices and default.
        least, above, most, below: bounds of a number: least <= value <= most, above < value < below. A number needs a
            lower and an upper one, so that NaN and infinity are refused too.
        choices: the legal values. items: the legal parts of a list, which a text is with commas between them.
    """
    bounds = {'least': least, 'above': above, 'most': most, 'below': below}
    return dataclasses.field(default=default, metadata={'help': help, 'bounds': bounds, 'choices': choices,
                                                        'items': items})


@dataclasses.dataclass(frozen=True)
class Section:
    """Base of the sections of a recipe, which are frozen dataclasses.

    Attributes:
        kind: the name of the section on the command line and in recipe.json.
    """

    kind = ''

    def __post_init__(self):
        for f in dataclasses.fields(self):
            check(f, getattr(self, f.name))
            if f.type is float and getattr(self, f.name) is not None:
                object.__setattr__(self, f.name, float(getattr(self, f.name)))      # 3 is taken for 3.0
        for name, rule, holds in self.rules():
            if not holds:
                raise UserError(f'`{name}` {rule}. Received: {name}={getattr(self, name)!r}')

    def rules(self):
        """(field, rule, whether it holds) for rules that involve more than one field."""
        return ()

    def idle(self):
        """(field, rule) of the fields that do nothing beside the values of the others."""
        return ()

    def values(self):
        """{name: value} of all fields."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def changed(self):
        """{name: value} of the fields that differ from their defaults."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}


def check(f, value):
    """Raises UserError unless `value` is legal for a field: its type, choices and bounds."""
    if value is None and f.default is None:
        return
    kinds = (int, float) if f.type is float else f.type
    if not isinstance(value, kinds) or isinstance(value, bool) and f.type is not bool:
        raise UserError(f'`{f.name}` must be of type {f.type.__name__}. Received: {f.name}={value!r}')
    if f.metadata['choices'] is not None:
        lookup(dict.fromkeys(f.metadata['choices']), value, f.name)
    if f.metadata['items'] is not None:
        _check_items(f.name, f.metadata['items'], value)
    if f.type in (int, float) and not _within(value, **f.metadata['bounds']):
        raise UserError(f'`{f.name}` must be {bounds(f)}. Received: {f.name}={value!r}')


def _check_items(name, items, value):
    parts = value.split(',')
    for part in parts:
        lookup(dict.fromkeys(items), part, name)
    if len(set(parts)) < len(parts):
        raise UserError(f'`{name}` must have each part once. Received: {name}={value!r}')


def check_field(section, name, value):
    """Raises UserError unless `value` is legal for the field of this name in a class of fields."""
    check(next(f for f in dataclasses.fields(section) if f.name == name), value)


def bounds(f):
    """The bounds of a field of numbers in words: 'at least 0 and below 1'."""
    words = {'least': 'at least', 'above': 'above', 'most': 'at most', 'below': 'below'}
    return ' and '.join(f'{words[name]} {bound:,}' for name, bound in f.metadata['bounds'].items() if bound is not None)


def _within(value, least, above, most, below):
    # Each comparison is false for NaN.
    return ((least is None or value >= least) and (above is None or value > above)
            and (most is None or value <= most) and (below is None or value < below))
