"""Weights of another model of the same architecture, by name: of ours, or of another library. Strict, but for the head.

Nothing here knows an architecture. A model whose weights others publish has a table of their names, a `Names`; see
`PUBLISHED` in models/__init__.py.
"""

import collections
import dataclasses
import re

HEAD = 'logits'     # the last layer of a model; all layers of a larger head begin with HEADS
HEADS = 'head_'
SHOWN = 3           # names in an error

# What makes of their array ours, and of ours theirs.
Transform = collections.namedtuple('Transform', 'to_ours to_theirs')
AS_IS = Transform(lambda array: array, lambda array: array)
DENSE = Transform(lambda array: array.transpose(1, 0), lambda array: array.transpose(1, 0))         # theirs [out, in]
CONVOLUTION = Transform(lambda array: array.transpose(2, 3, 1, 0), lambda array: array.transpose(3, 2, 0, 1))


@dataclasses.dataclass(frozen=True)
class Names:
    """How another library names and lays out the variables of a model.

    Attributes:
        table: {path of ours: (their name, Transform)}; each {} on both sides stands for one and the same number.
        prefixes: what all of their names but those of the head may begin with. The first is written.
        ignored: endings of their names that hold no weights, or those of a head that is not here.
        older: {ending of a name: what it is today}.
    """
    table: dict
    prefixes: tuple = ()
    ignored: tuple = ()
    older: dict = dataclasses.field(default_factory=dict)

    def of(self, paths):
        """{path: (their name, Transform)} of the paths that the table has."""
        rows = [(re.compile(re.escape(ours).replace(r'\{\}', r'(\d+)')), *row) for ours, row in self.table.items()]
        found = {}
        for path in paths:
            for pattern, name, transform in rows:
                if match := pattern.fullmatch(path):
                    found[path] = name.format(*match.groups()), transform
        return found

    def without_prefix(self, name):
        for old, new in self.older.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        return next((name.removeprefix(prefix) for prefix in self.prefixes if name.startswith(prefix)), name)

    def to_ours(self, shapes, theirs):
        """{their name: array} -> what `match` returns, for a model of {path: shape}.

        Raises:
            ValueError: a variable outside the head is not there, an array has no variable, or a shape differs.
        """
        theirs = {self.without_prefix(name): array for name, array in theirs.items()}
        names = {path: (self.without_prefix(name), transform) for path, (name, transform) in self.of(shapes).items()}
        missing = [path if path not in names else names[path][0] for path in shapes
                   if (path not in names or names[path][0] not in theirs) and not _is_head(path)]
        # The head of their model is left out where the last layers here are others.
        head = {self.without_prefix(name) for path, (name, _) in self.table.items() if _is_head(path)}
        taken = {name for name, _ in names.values()} | head
        unused = [name for name in theirs if name not in taken and not name.endswith(self.ignored)]
        if missing or unused:
            raise ValueError(' and '.join([f'{some(missing)} {_is(missing)} not there'] * bool(missing)
                                          + [f'{some(unused)} {_is(unused)} not here'] * bool(unused)))
        arrays = {}
        for path, (name, transform) in names.items():
            if name in theirs:
                if theirs[name].ndim != len(shapes[path]):
                    raise ValueError(f'{name} has {theirs[name].ndim} axes there, {len(shapes[path])} here')
                arrays[path] = transform.to_ours(theirs[name])
        return match(shapes, arrays)

    def to_theirs(self, arrays):
        """{path: array} of all variables of a model -> {their name, with its prefix: array}."""
        names, prefix = self.of(arrays), self.prefixes[0] if self.prefixes else ''
        if lacking := [path for path in arrays if path not in names]:
            raise ValueError(f'{some(lacking)} {_is(lacking)} not there')
        return {('' if _is_head(path) else prefix) + name: transform.to_theirs(arrays[path])
                for path, (name, transform) in names.items()}

    def knows(self, shapes, theirs):
        """How many of {their name: array} the table has for a model of {path: shape}."""
        ours, theirs = ({self.without_prefix(name) for name in names} for names in (
            (name for name, _ in self.of(shapes).values()), theirs))
        return len(ours & theirs)


def match(shapes, arrays):
    """Says which array each variable of a model starts from.

    Args:
        shapes: {path of a variable: its shape}, of the whole model.
        arrays: {path: numpy array}, of the other model.

    Returns:
        ({path: array}, [paths of the head that has no array of its shape, and keeps its own values])

    Raises:
        ValueError: a variable outside the head has no array of its shape, or an array outside the head no variable.
    """
    left = sorted(path for path in {*shapes, *arrays} if path not in shapes or path not in arrays
                  or tuple(shapes[path]) != arrays[path].shape)
    for path in left:
        if not _is_head(path):
            here = list(shapes[path]) if path in shapes else 'nothing'
            there = list(arrays[path].shape) if path in arrays else 'nothing'
            raise ValueError(f'{path} is {there} there, {here} here')
    return {path: arrays[path] for path in shapes if path not in left}, [path for path in left if path in shapes]


def _is_head(path):
    return any(part == HEAD or part.startswith(HEADS) for part in path.split('/'))


def some(names):
    """The first names, and how many more there are."""
    shown = ', '.join(sorted(names)[:SHOWN])
    return f'{shown} and {len(names) - SHOWN:,} more' if len(names) > SHOWN else shown


def _is(names):
    return 'is' if len(names) == 1 else 'are'
