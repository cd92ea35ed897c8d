"""Says what this machine can train on, and why not more: python -m strategies.doctor

TensorFlow and jax are imported in child processes alone, because some wheels end the process that imports them, and
others wait for minutes. Needs nothing but Python, and touches no network.
"""

import argparse
import ctypes.util
import dataclasses
import glob
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap

from strategies import diagnosis, jax_diagnosis

WIDTH, MARGIN = 100, 14
CHILD_SECONDS = 120.      # an import takes 4 to 12 s, a TPU's bring-up tens of seconds more
GOOGLE, NVIDIA = '0x1ae0', '0x10de'      # PCI vendors
# Google's PCI devices, as JAX lists them (jax/_src/hardware_utils.py).
TPU_DEVICES = {'0x0027': 'v2 or v3', '0x005e': 'v4', '0x0062': 'v5p', '0x0063': 'v5e', '0x006f': 'v6e',
               '0x0076': 'tpu7x'}

_CHILD = '''
import json, sys
import tensorflow as tf
count = lambda kind: len(tf.config.list_physical_devices(kind))
said = {'version': tf.__version__, 'cuda': tf.test.is_built_with_cuda(), 'cpus': count('CPU'), 'gpus': count('GPU')}
print(json.dumps(said), flush=True)
if sys.argv[1:]:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu='local')
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    print(json.dumps({'tpus': len(tf.config.list_logical_devices('TPU'))}))
'''

_JAX_CHILD = '''
import json, sys
import jax
jax.config.update('jax_platforms', sys.argv[1])
devices = jax.devices()
print(json.dumps({'devices': len(devices), 'kind': devices[0].device_kind}))
'''


def look():
    """The Machine as it is, without TensorFlow."""
    pci = [tuple(_read(f'{folder}/{name}') for name in ('vendor', 'device'))
           for folder in glob.glob('/sys/bus/pci/devices/*')]
    gpus = [device for vendor, device in pci if vendor == NVIDIA]
    return diagnosis.Machine(
        packages=_packages(), environment=dict(os.environ),
        tpu_files=tuple(sorted(glob.glob('/dev/accel[0-9]*') + glob.glob('/dev/vfio/[0-9]*'))),
        tpu_chips=tuple(TPU_DEVICES[device] for vendor, device in pci if vendor == GOOGLE and device in TPU_DEVICES),
        nvidia_gpus=max(len(gpus), len(glob.glob('/dev/nvidia[0-9]*'))),
        libcuda=ctypes.util.find_library('cuda') is not None, libtpu=_libtpu_file(),
        google='Google' in _read('/sys/class/dmi/id/product_name'))


def ask_tensorflow(machine, seconds=CHILD_SECONDS):
    """The Machine with what a child process said that imported TensorFlow, and brought a TPU up if there is one."""
    if not machine.wheels:
        return machine
    bring_up = ['tpu'] if machine.has_tpu and machine.wheels == ['tensorflow-tpu'] else []
    environment = {**diagnosis.tpu_environment(machine), **machine.environment}
    environment.pop('TF_CPP_MIN_LOG_LEVEL', None)       # what TensorFlow notes is what is searched for causes
    said, output, code = _child(_CHILD, bring_up, environment, seconds)
    return dataclasses.replace(machine, said=said, output=output, exit_code=code)


def ask_jax(machine, seconds=CHILD_SECONDS):
    """The Machine with what a child process said that asked jax for its TPU or GPUs, where TensorFlow drives none."""
    for hardware, platform, there in (('tpu', 'tpu', machine.has_tpu), ('gpu', 'cuda', machine.nvidia_gpus)):
        if there and jax_diagnosis.runtime(machine, hardware)[0] == 'pjrt':
            said, output, _ = _child(_JAX_CHILD, [platform], machine.environment, seconds)
            telling = [line for line in output.strip().splitlines() if line.strip()] or ['it says nothing']
            return dataclasses.replace(machine, said_by_jax=said or {'error': telling[-1][:200]})
    return machine


def _child(program, arguments, environment, seconds):
    """Runs a program of Python. Returns (what it said as JSON, what it wrote to stderr, its exit code)."""
    try:
        done = subprocess.run([sys.executable, '-c', program, *arguments], env=environment, timeout=seconds,
                              stdin=subprocess.DEVNULL, capture_output=True)
        stdout, stderr, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        stdout, stderr, code = late.stdout or b'', (late.stderr or b'') + b'\nstill busy when its time was over', 124
    said = {}
    for line in stdout.decode(errors='replace').splitlines():
        if line.startswith('{'):
            said.update(json.loads(line))
    return said, stderr.decode(errors='replace'), code


def report(machine):
    """The lines to print."""
    found = [function(machine) for function in (diagnosis.venue, diagnosis.wheel, diagnosis.needed, diagnosis.imports,
                                                diagnosis.cuda, diagnosis.libtpu, jax_diagnosis.installed,
                                                diagnosis.chips)]
    lines = [line for finding in found + diagnosis.environment(machine) for line in _lines(finding)]
    lines.append('')
    for name in ('cpu', 'gpu', 'multiworker', 'tpu'):
        by, obstacle = _runtime(name, machine)
        if by:
            lines += _wrapped(name, f'yes: {_yes(name, by, obstacle, machine)}')
        else:
            lines += _wrapped(name, f'no, because {obstacle.problem}') + [f'{"":{MARGIN}}fix: {obstacle.fix}']
    return lines


def _runtime(name, machine):
    """As jax_diagnosis.runtime, for each strategy."""
    if name in ('gpu', 'tpu'):
        return jax_diagnosis.runtime(machine, name)
    obstacle = getattr(diagnosis, name)(machine)
    return '' if obstacle else 'tensorflow', obstacle


def _yes(name, by, obstacle, machine):
    if name == 'multiworker':
        return 'TF_CONFIG is set' if machine.environment.get('TF_CONFIG') else '--num_workers=2 starts two workers here'
    said = (machine.said_by_jax or {}) if by == 'pjrt' else machine.said
    count = said.get('devices' if by == 'pjrt' else f'{name}s', 0)
    devices = f'{count} device' + ('s' if count != 1 else '')
    if name == 'cpu':
        return devices
    if by == 'tensorflow':
        return f'{devices}, by runtime tensorflow'
    flag = '--runtime=pjrt' if name == 'gpu' else 'runtime pjrt'
    return (f'{devices} ({said.get("kind", "unknown")}), by {flag}, jax {machine.packages["jax"]}; not by TensorFlow, '
            f'because {obstacle.problem}')


def _lines(finding):
    lines = _wrapped(finding.subject, finding.fact)
    if finding.problem:
        lines += _wrapped('', f'cause: {finding.problem}') + [f'{"":{MARGIN}}fix: {finding.fix}']    # to be copied
    return lines


def _wrapped(subject, text):
    return textwrap.wrap(text, WIDTH, initial_indent=f'{subject:{MARGIN}}', subsequent_indent=' ' * MARGIN,
                         break_long_words=False, break_on_hyphens=False)


def _packages():
    found = {}
    for distribution in importlib.metadata.distributions():
        if name := distribution.metadata['Name']:      # of two, the first is what is imported
            found.setdefault(re.sub(r'[-_.]+', '-', name).lower(), distribution.version)
    return found


def _libtpu_file():
    try:
        return str(importlib.metadata.distribution('libtpu').locate_file('libtpu/libtpu.so'))
    except importlib.metadata.PackageNotFoundError:
        return ''


def _read(path):
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ''


def main():
    argparse.ArgumentParser('python -m strategies.doctor', description=__doc__.partition(':')[0]).parse_args()
    print('\n'.join(report(ask_jax(ask_tensorflow(look())))))


if __name__ == '__main__':
    main()
