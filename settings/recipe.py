"""The Recipe: everything that decides a run's result, in four sections. Options decide where and how fast it runs.

A run is a pure function of (recipe, seed), so a recipe is frozen, typed, printed and saved as `workdir/recipe.json`.
A field's name is unique within a recipe, so it is its flag: --learning_rate=3e-4. What does not apply to the data, the
model or the task of a recipe is not a field of it.
"""

import dataclasses
import json

from errors import UserError, lookup
from settings import data, models, tasks, training


def _kinds(module):
    return {cls.kind: cls for cls in vars(module).values() if getattr(cls, 'kind', '')}


# {section: {kind: class}}
SECTIONS = {'data': _kinds(data), 'model': _kinds(models), 'task': _kinds(tasks), 'training': {'': training.Training}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    data: data.Data                     # which examples, and how they become numbers
    model: models.Model                 # which architecture, of what size
    task: tasks.Task                    # what is asked of it
    training: training.Training         # how it is trained

    def __post_init__(self):
        for f in dataclasses.fields(self):
            if not isinstance(getattr(self, f.name), f.type):
                known = ', '.join(cls.__name__ for cls in SECTIONS[f.name].values())
                raise UserError(f'`{f.name}` of a recipe must be one of {known}. Received: {getattr(self, f.name)!r}')

    def fields(self):
        """{name: (section, field)} of all sections."""
        return {f.name: (section, f) for section in SECTIONS for f in dataclasses.fields(getattr(self, section))}

    def values(self):
        """{name: value} of the fields of all sections."""
        return {name: value for section in SECTIONS for name, value in getattr(self, section).values().items()}

    def replace(self, **values):
        """The recipe with some fields changed, whatever their section. `steps` and `epochs` replace each other.

        Raises:
            UserError: the recipe has no such field, a value is not legal, or it would do nothing.
        """
        fields, changed = self.fields(), {}
        for one, other in (('steps', 'epochs'), ('epochs', 'steps')):
            if values.get(one):
                values.setdefault(other, fields[other][1].default)
        for name, value in values.items():
            if name not in fields:
                raise UserError(f'{not_a_field(name, str(self))}. Received: {name}={value!r}')
            changed.setdefault(fields[name][0], {})[name] = value
        sections = {section: dataclasses.replace(getattr(self, section), **some) for section, some in changed.items()}
        for name, rule in (idle for section in sections.values() for idle in section.idle()):
            if name in values:
                raise UserError(f'`{name}` {rule}. Received: {name}={values[name]!r}')
        return dataclasses.replace(self, **sections)

    def resolved(self, hardware, bfloat16=False):
        """The recipe without `auto`, for cpu, gpu or tpu. bfloat16: whether these are GPUs that have units for it."""
        precision = 'bfloat16' if hardware == 'tpu' or bfloat16 else 'float32'
        return self.replace(precision=precision) if self.training.precision == 'auto' else self

    def as_dict(self):
        """{section: {field: value}}; `kind` says which model, task and data."""
        kinds = {name: {'kind': getattr(self, name).kind} for name in ('data', 'model', 'task')}
        return {name: {**kinds.get(name, {}), **getattr(self, name).values()} for name in SECTIONS}

    def to_json(self):
        return json.dumps(self.as_dict(), indent=2) + '\n'

    @classmethod
    def from_json(cls, text):
        """Raises UserError in one line: not a recipe, one of an older version, or an illegal value."""
        try:
            found = json.loads(text)
        except ValueError as error:
            raise UserError(f'it is not JSON ({error})') from None
        if isinstance(found, dict) and isinstance(found.get('model'), str):
            raise UserError('it was written by version 0.4.0 or older, which had no sections. Use that version for '
                            'this run, or train it again in another --workdir')
        if not isinstance(found, dict) or set(found) != set(SECTIONS):
            raise UserError(f'it must have the sections {", ".join(SECTIONS)}')
        return cls(**{name: _section(name, values) for name, values in found.items()})

    def __str__(self):
        """'model lstm on digits', for messages."""
        return f'model {self.model.kind} on {self.data.dataset}'


def _section(name, values):
    if not isinstance(values, dict):
        raise UserError(f'its section {name} must hold fields. Received: {values!r}')
    values = dict(values)
    cls = lookup(SECTIONS[name], str(values.pop('kind', '')), name)
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
    if unknown:
        raise UserError(f'its section {name} has fields that this version does not know: {", ".join(unknown)}')
    return cls(**values)


def homes():
    """{field: ['model lstm', ...]}: the sections that have it."""
    found = {}
    for section, kinds in SECTIONS.items():
        for kind, cls in kinds.items():
            for f in dataclasses.fields(cls):
                found.setdefault(f.name, []).append(f'{section} {kind}'.strip())
    return found


def not_a_field(name, recipe):
    """What to say where a recipe, described by `recipe`, lacks a field that others may have."""
    places = homes().get(name)
    return f'`{name}` is no field of {recipe}' + (f'; it is one of: {", ".join(places)}' if places else '')


def differences(saved, wanted):
    """'field: saved there, wanted here' for each field in which two recipes differ.

    What `wanted` leaves open does not differ: `auto`, and None in a model that starts from weights.
    """
    undecided = ('auto', None) if wanted.model.weights else ('auto',)
    theirs, ours = ({**{name: getattr(r, name).kind for name in ('data', 'model', 'task')}, **r.values()}
                    for r in (saved, wanted))
    return [f'{name}: {theirs.get(name)!r} there, {ours.get(name)!r} here' for name in {**theirs, **ours}
            if ours.get(name) not in (theirs.get(name), *undecided)]
