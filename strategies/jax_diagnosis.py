"""Which runtime drives a machine's TPU or GPUs, and what is in jax's way: as diagnosis.py, over a Machine's facts."""

import re

from strategies import diagnosis
from strategies.diagnosis import Finding

OLDEST = (0, 8)      # of jax: public functions that training/pjrt calls are of this version
INSTALL = {'tpu': 'pip install -e ".[tpu]"', 'gpu': 'pip install "jax[cuda12]"', 'cpu': 'pip install jax'}
PLUGINS = {'tpu': r'libtpu', 'gpu': r'jax-cuda\d+-plugin', 'cpu': r'jaxlib'}
NAMES = {'tpu': 'libtpu', 'gpu': "jax's CUDA plugin", 'cpu': 'jaxlib'}


def installed(machine):
    """The packages of jax's runtime."""
    wanted = '|'.join((r'jax', r'jaxlib', *PLUGINS.values()))
    found = [f'{name} {version}' for name, version in sorted(machine.packages.items()) if re.fullmatch(wanted, name)]
    return Finding('jax', ', '.join(found) or 'none')


def missing(machine, hardware, plugin=True):
    """What is not installed, or too old, as a Finding; or None. plugin: whether to look for that of tpu or gpu too."""
    version = machine.packages.get('jax')
    if version is None:
        problem = 'jax is not installed'
    elif tuple(map(int, re.findall(r'\d+', version)[:2])) < OLDEST:
        problem = f'jax {version} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed'
    elif plugin and not any(re.fullmatch(PLUGINS[hardware], name) for name in machine.packages):
        problem = f'{NAMES[hardware]} is not installed'
    else:
        return None
    return Finding(hardware, problem=problem, fix=INSTALL[hardware])


def obstacle(machine, hardware):
    """The obstacle to a TPU or GPUs by runtime pjrt, or None. What a child said that asked jax counts, if one did."""
    if absent := (diagnosis.no_tpu if hardware == 'tpu' else diagnosis.no_gpu)(machine):
        return absent
    if found := missing(machine, hardware):
        return found
    if not machine.wheels:      # TensorFlow traces the step
        return diagnosis.wheel(machine)
    said = machine.said_by_jax
    if said is None or said.get('devices'):
        return None
    return Finding(hardware, problem=f'jax {machine.packages["jax"]} sees no {hardware.upper()}: {said["error"]}',
                   fix=diagnosis.END_OTHERS if hardware == 'tpu' else INSTALL['gpu'])


def runtime(machine, hardware):
    """(the runtime that drives a TPU or GPUs: tensorflow, pjrt or ''; the Finding of what is in TensorFlow's way, and
    jax's where neither does; or None).
    """
    theirs = getattr(diagnosis, hardware)(machine)
    if theirs is None:
        return 'tensorflow', None
    ours = obstacle(machine, hardware)
    if ours is None:
        return 'pjrt', theirs
    if ours.problem == theirs.problem:
        return '', theirs
    return '', Finding(hardware, problem=f'{ours.problem}, and TensorFlow cannot: {theirs.problem}', fix=ours.fix)
