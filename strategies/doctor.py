"""Says what this machine can train on, and why not more: python -m strategies.doctor

TensorFlow is imported in a child process alone, because some wheels end the process that imports them, and others
wait for minutes. Needs nothing but Python, and touches no network.
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

from strategies import diagnosis

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
    try:
        done = subprocess.run([sys.executable, '-c', _CHILD, *bring_up], env=environment, timeout=seconds,
                              stdin=subprocess.DEVNULL, capture_output=True)
        stdout, stderr, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        stdout, stderr, code = late.stdout or b'', (late.stderr or b'') + b'\nstill busy when its time was over', 124
    said = {}
    for line in stdout.decode(errors='replace').splitlines():
        if line.startswith('{'):
            said.update(json.loads(line))
    return dataclasses.replace(machine, said=said, output=stderr.decode(errors='replace'), exit_code=code)


def report(machine):
    """The lines to print."""
    found = [function(machine) for function in (diagnosis.venue, diagnosis.wheel, diagnosis.needed, diagnosis.imports,
                                                diagnosis.cuda, diagnosis.libtpu, diagnosis.chips)]
    lines = [line for finding in found + diagnosis.environment(machine) for line in _lines(finding)]
    lines.append('')
    for name in ('cpu', 'gpu', 'multiworker', 'tpu'):
        obstacle = getattr(diagnosis, name)(machine)
        lines += _wrapped(name, f'no, because {obstacle.problem}' if obstacle else f'yes: {_yes(name, machine)}')
        lines += [f'{"":{MARGIN}}fix: {obstacle.fix}'] if obstacle else []
    return lines


def _yes(name, machine):
    if name == 'multiworker':
        return 'TF_CONFIG is set' if machine.environment.get('TF_CONFIG') else '--num_workers=2 starts two workers here'
    return f'{machine.said.get(f"{name}s", 0)} device' + ('s' if machine.said.get(f'{name}s') != 1 else '')


def _lines(finding):
    lines = _wrapped(finding.subject, finding.fact)
    if finding.problem:
        lines += _wrapped('', f'cause: {finding.problem}') + [f'{"":{MARGIN}}fix: {finding.fix}']    # to be copied
    return lines


def _wrapped(subject, text):
    return textwrap.wrap(text, WIDTH, initial_indent=f'{subject:{MARGIN}}', subsequent_indent=' ' * MARGIN,
                         break_long_words=False, break_on_hyphens=False)


def _packages():
    return {re.sub(r'[-_.]+', '-', name).lower(): distribution.version
            for distribution in importlib.metadata.distributions() if (name := distribution.metadata['Name'])}


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
    print('\n'.join(report(ask_tensorflow(look()))))


if __name__ == '__main__':
    main()
