"""Brings a TPU up, or says in one line what is in the way. Imports TensorFlow only when asked to bring one up.

A TPU of this machine is `local`. A slice of several hosts is named, or given as the grpc:// address of its workers:
one process then drives all hosts, where each other host runs TensorFlow's TPU worker, as Google's `-pod` images do.
"""

import os
import socket

from errors import UserError
from strategies import diagnosis, doctor

CONNECT_SECONDS = 5.      # TensorFlow itself waits for a worker that is not there without an end


def prepare_environment():
    """Sets what TensorFlow needs from the environment on this machine. To be called before TensorFlow is imported.

    Without a TPU the tensorflow-tpu wheel must not ask for Google's metadata, and v5e and newer are driven by PJRT, a
    plugin that TensorFlow loads during its import. What the user has set stays.
    """
    for name, value in diagnosis.tpu_environment(doctor.look()).items():
        os.environ.setdefault(name, value)


def bring_up(address):
    """Returns the tf.distribute.TPUStrategy of all cores of a TPU.

    Args:
        address: 'local', a TPU's name, or grpc://host:port.

    Raises:
        UserError: there is none, or it cannot be driven: the cause, and the command that fixes it.
    """
    machine = doctor.look()
    if address == 'local':
        obstacle = diagnosis.tpu(machine) or _unprepared(machine)
    else:
        obstacle = _unreachable(address) if address.startswith('grpc://') else None
    if obstacle:
        raise _error(address, obstacle)
    import tensorflow as tf
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:   # each layer of TPU bring-up raises its own kind, from ValueError to OpError
        raise _error(address, diagnosis.failed(f'{type(error).__name__}: {error}', machine)) from None


def _error(address, obstacle):
    return UserError(f'`strategy` tpu needs a TPU at {address!r}: {obstacle}. Received: strategy=tpu')


def _unprepared(machine):
    unset = {name: value for name, value in diagnosis.tpu_environment(machine).items() if name not in os.environ}
    if unset:
        return diagnosis.Finding('tpu', problem=f'TensorFlow drives {machine.generation} only if {" and ".join(unset)} '
                                 'are set before it is imported',
                                 fix='export ' + ' '.join(f'{name}={value}' for name, value in unset.items()))
    return None


def _unreachable(address):
    for worker in address.split(','):
        host, _, port = worker.removeprefix('grpc://').partition(':')
        try:
            socket.create_connection((host, int(port or 8470)), CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            return diagnosis.Finding('tpu', problem=f'no TPU worker answers at {worker} ({error})',
                                     fix='python train.py --strategy=tpu --tpu=local, on the TPU VM itself')
    return None
