"""The command line of every verb (train.py, evaluate.py, ...): flags, help, silence, errors, exit codes.

Which flags exist depends on what is trained: the selectors --recipe, --model, --task and --dataset are parsed first;
each field of the recipe that they name is then a flag. So --help shows what applies, and nothing is ignored.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import textwrap
import traceback

from absl import app, flags, logging

import recipes
from errors import FAILED, INTERRUPTED, PREEMPTED, USAGE, RunError, Stopped, UserError, quiet_stderr
from settings import Options
from settings.datasets import DATASETS
from settings.recipe import SECTIONS, Recipe, homes, not_a_field
from strategies import hosts, tpu

flags.disclaim_key_flags()      # flags defined here belong to the verb, whose --help shows them

WIDTH = 100
DEFINE = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_boolean}
SELECTORS = {
    'recipe': 'Recipe: a name from recipes/, or the path of your own file, mine.py.',
    'model': f'Model: {", ".join(SECTIONS["model"])}. Alone, it selects the default recipe of the model.',
    'task': f'Task: {", ".join(SECTIONS["task"])}. It selects among the recipes of the model.',
    'dataset': 'Dataset. It selects the recipe made for it, if there is one, and is read in any case.'}
NO_PATHS = ('text', 'values', 'tpu', 'coordinator_address')      # flags whose values may hold ://
DEVICES = ('strategy', 'virtual_devices', 'runtime', 'tpu', 'coordinator_address', 'num_processes', 'process_id')
LIST = 'List of all models, tasks, recipes and datasets, and of the strategies that this machine can use.'


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What the command line says is trained: a recipe by name, with the fields that were given."""
    name: str
    original: Recipe
    given: dict            # {field: value}

    @property
    def recipe(self):
        return self.original.replace(**self.given)

    @property
    def changes(self):
        """{field: value} of what differs from the recipe."""
        before = self.original.values()
        return {name: value for name, value in self.given.items() if value != before[name]}

    @property
    def inherited(self):
        """One line on what the recipe keeps though it was made for another dataset, or None."""
        return recipes.inherited(self.name, self.original, self.given)


def run(main, define, recipe=False, arguments=False, of_run=None):
    """Parses flags, calls main and ends the process with what it returns, None being 0. A user's mistake is one line.

    Args:
        main: function (); with `recipe`, (Chosen); with `arguments`, (positional arguments).
        define: function () that defines the verb's own flags.
        of_run: function (value of --workdir) that defines the flags of the run there; none where it is ''. Returns
            (their title in --help, {flag that only other runs have: the rule that it breaks}).
    """
    def parse(argv):
        try:
            return _parse(argv, main, define, recipe, arguments, of_run)
        except (flags.Error, ValueError) as error:      # a UserError is a ValueError
            _fail(' '.join(str(error).split()))
            sys.exit(USAGE)
    app.run(_end, flags_parser=parse)


def _parse(argv, main, define, recipe, arguments, of_run):
    """Returns a function () that does what the command line asks for."""
    selected = _peek(argv, recipe, of_run)
    _check_paths(selected)      # some are read before the other flags are known
    wanted = {name: selected[name] for name in SELECTORS if recipe}
    found = recipes.find(**wanted) if wanted.get('recipe') is not None or wanted.get('model') is not None else None
    groups = _define_recipe(*found) if found else {'what to train': _define_selectors()} if recipe else {}
    groups['run' if recipe else 'flags'], _ = _defined_by(define)
    others = {}
    if of_run:
        names, (title, others) = _defined_by(of_run, selected['workdir'])
        groups.update({title: names} if names else {})
    if selected['help']:
        flags.FLAGS.mark_as_parsed()
        return lambda: _print_help(groups, recipe and not found, of_run and not selected['workdir'])
    rest = _parse_all(argv, recipe, found, others)[1:]
    _check_paths(flags.FLAGS.flag_values_dict())
    if rest and not arguments:
        raise UserError(f'`{os.path.basename(argv[0])}` takes flags only. Received: {" ".join(rest)}')
    if recipe and selected['list']:
        return print_list
    if recipe:
        name, original = found or recipes.find()
        given = {field: flags.FLAGS[field].value for field in original.fields() if flags.FLAGS[field].present}
        return lambda: main(Chosen(name, original, given))
    return (lambda: main(rest)) if arguments else main


def _peek(argv, recipe, of_run):
    """{name: value} of the flags that decide which others there are."""
    peek = flags.FlagValues()
    peek.set_gnu_getopt(True)       # the value of a flag that is not known yet looks like a positional argument
    for name in SELECTORS if recipe else ():
        flags.DEFINE_string(name, None, '', flag_values=peek)
    if of_run:
        flags.DEFINE_string('workdir', '', '', flag_values=peek)
    flags.DEFINE_boolean('list', False, '', flag_values=peek)
    flags.DEFINE_boolean('help', False, '', short_name='?', flag_values=peek)
    flags.DEFINE_boolean('helpshort', False, '', flag_values=peek)
    peek(argv, known_only=True)
    return {**peek.flag_values_dict(), 'help': peek['help'].value or peek['helpshort'].value}


def _parse_all(argv, recipe, found, others):
    """Parses all flags. Returns the rest of the command line. others: {flag: the rule that it breaks}."""
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        if error.flagname in others:
            raise UserError(f'`{error.flagname}` {others[error.flagname]}. Received: {error.flagvalue}') from None
        name = error.flagname if error.flagname in homes() else error.flagname.removeprefix('no')
        if not recipe or name not in homes():
            raise
        name_of_recipe, _ = found or recipes.find()
        raise UserError(f'{not_a_field(name, f"recipe {name_of_recipe}")}. Received: {error.flagvalue}') from None


def _check_paths(values):
    """Refuses addresses such as gs://bucket/x, out of which a path would make a local folder `gs:`.

    Every flag is looked at, so that none is forgotten. values: {name: value, or list of values}.
    """
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            if name not in NO_PATHS and isinstance(one, str) and '://' in one:
                raise UserError(f'`{name}` must be a path on this machine; a mounted bucket is one, see '
                                f'docs/limits.md. Received: --{name}={one}')


def _define_selectors(*but):
    for name, text in SELECTORS.items():
        if name not in but:
            flags.DEFINE_string(name, None, text)
    flags.DEFINE_boolean('list', False, LIST)
    return [*(name for name in SELECTORS if name not in but), 'list']


def _define_recipe(name, recipe):
    """One flag per field of the recipe. Returns {title: names of flags}."""
    groups = {f'what to train: recipe {name}': _define_selectors('dataset')}
    for field, (section, f) in recipe.fields().items():
        kind = getattr(recipe, section).kind
        groups.setdefault(f'{section}: {kind}' if kind else section, []).append(field)
        _define_field(f, getattr(getattr(recipe, section), field))
    return groups


def define_flags(cls, names=None, inherit=False):
    """Defines one flag per field of a class of fields.

    Args:
        names: the fields; None means all.
        inherit: whether a flag that is not given is None, because the run decides, instead of the field's default.
    """
    for f in dataclasses.fields(cls):
        if names is None or f.name in names:
            _define_field(f, None if inherit else f.default, ' Without it, that of the run.' if inherit else '')


def _define_field(f, default, more=''):
    choices = f.metadata['choices']
    known = f' One of {", ".join(map(str, choices))}.' if choices else ''
    if f.metadata['items']:
        known = f' One or more of {", ".join(f.metadata["items"])}, with commas between them.'
    DEFINE[f.type](f.name, default, f.metadata['help'] + known + more)


def run_flags(devices=True):
    """The flags of every verb that reads a run. devices: also those that choose the devices."""
    flags.DEFINE_string('workdir', None, 'Folder of a run, made by train.py.')
    flags.DEFINE_string('checkpoint', 'newest', 'Checkpoint whose weights are used: newest, best, or a step.')
    define_flags(Options, (*DEVICES, 'data_dir') if devices else ('data_dir',))


def _defined_by(define, *arguments):
    """(names of the flags that a function defines, what it returns)."""
    before = set(flags.FLAGS)
    returned = define(*arguments)
    return [name for name in flags.FLAGS if name not in before], returned


def given(cls):
    """{field: value} of the flags of a dataclass that were given or have a default."""
    values = {f.name: flags.FLAGS[f.name].value for f in dataclasses.fields(cls) if f.name in flags.FLAGS}
    return {name: value for name, value in values.items() if value is not None}


def required(*names):
    for name in names:
        if not flags.FLAGS[name].value:
            raise UserError(f'`--{name}` is required: {" ".join(flags.FLAGS[name].help.split())}')


def _print_help(groups, selectors_only, needs_run):
    print((sys.modules['__main__'].__doc__ or '').strip())
    for title, names in groups.items():
        if selectors_only and title == 'run':
            verb = os.path.basename(sys.argv[0])
            print(f'\nThe other flags depend on the recipe: python {verb} --model=MODEL --help')
            continue
        print(f'\n{title}')
        for name in names:
            flag = flags.FLAGS[name]
            default = '' if flag.default is None else f' (default: {flag.default!r})'
            print(f'  --{"[no]" if flag.boolean else ""}{name}{default}')
            print(textwrap.fill(' '.join(flag.help.split()), WIDTH, initial_indent=' ' * 6, subsequent_indent=' ' * 6))
    if needs_run:
        print(f'\nThe other flags depend on the run: python {os.path.basename(sys.argv[0])} --workdir=RUN --help')


def print_list():
    """What can be trained, from where, and on what."""
    print('models')
    for model in SECTIONS['model']:
        tasks = sorted({r.task.kind for _, r in map(recipes.load, recipes.NAMES) if r.model.kind == model})
        default = recipes.DEFAULT.get(model)
        print(f'  {model:<26}' + (f'{", ".join(tasks)}; default recipe {default}' if default else 'no recipe'))
    print('tasks')
    for task, cls in SECTIONS['task'].items():
        names = [f.name for f in dataclasses.fields(cls)]
        print(f'  {task:<26}{"options " + ", ".join(names) if names else "no options"}')
    print('recipes')
    for name, recipe in map(recipes.load, recipes.NAMES):
        print(f'  {name:<26}model {recipe.model.kind}, task {recipe.task.kind}, dataset {recipe.data.dataset}, '
              f'reads {recipe.data.kind}')
    print('datasets')
    for name, (what, source) in DATASETS.items():
        print(textwrap.fill(f'{name:<26}{what}; {source}', WIDTH, initial_indent='  ', subsequent_indent=' ' * 28))
    print('strategies', flush=True)
    with quiet_tensorflow():
        from strategies.selection import usable
    for name, (can, reason) in usable().items():
        print(f'  {name:<26}{"yes" if can else "no"}: {reason}')


def _end(call):
    try:
        code = _guarded(call)
    except Exception:      # a mistake of ours: shown as ever, but it must not leave the other processes waiting
        if hosts.is_alone():
            raise
        traceback.print_exc()
        code = FAILED
    hosts.leave(code)
    sys.exit(code)


def _guarded(call):
    signal.signal(signal.SIGTERM, _stop)
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.ERROR)      # TensorFlow logs through absl too
    try:
        return call() or 0
    except UserError as error:
        _fail(error)
        return USAGE
    except Stopped as stop:
        print(stop, flush=True)
        return INTERRUPTED if stop.cause == 'SIGINT' else PREEMPTED
    except KeyboardInterrupt:
        _fail('interrupted; what was saved before is there')
        return INTERRUPTED
    except OSError as error:
        _fail(f'{error.strerror or error}: {error.filename}' if error.filename else error)
        return FAILED
    except RunError as error:
        _fail(error)
        return FAILED


def _stop(number, _):
    """Before and after the training loop, which has its own way, SIGTERM ends the process where it is."""
    raise Stopped(signal.Signals(number).name)


def _fail(message):
    print(f'error: {message}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet_tensorflow(options=None):
    """Around the first import of TensorFlow, which reads the environment then.

    Its C++ notes go nowhere, unless TF_CPP_MIN_LOG_LEVEL asks for them. options: of a run that workers may share.
    """
    tpu.prepare_environment()
    if os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3') < '3':
        yield
        return
    if options and options.runtime != 'tensorflow' and hosts.may_be_several(options.process):
        hosts.import_quiet_jax()
    with quiet_stderr():      # written before absl's logging starts, so the level alone does not silence them
        yield
