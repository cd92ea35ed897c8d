"""The processes that jax joins to one run: how they meet, and how they end together. Needs neither TensorFlow nor jax.

Where one is lost, jax ends the others by abort(), in a thread of its C++, after a page of text. Here they end with one
line and exit code 1, and within bounded time: a process that dies is missed at once where its sockets are read (on
CPUs), and one that hangs after HEARTBEAT seconds, everywhere.
"""

import contextlib
import ctypes
import functools
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.request

from errors import FAILED, INTERRUPTED, PREEMPTED, RunError
from strategies import doctor

ARRIVAL = 300       # seconds in which all processes must have come; clusters start their hosts minutes apart
HEARTBEAT = 20      # seconds of silence after which a process is lost
FAREWELL = 10.      # seconds for which a process that is done waits until the others are
METADATA = 3.       # seconds for Google's metadata server, which answers at once where there is one
LOST = ('another worker was lost, so that this one cannot continue; start all workers again, and the run resumes from '
        'its newest checkpoint')
CODES = ('UNAVAILABLE', 'ABORTED', 'CANCELLED', 'INTERNAL', 'DEADLINE_EXCEEDED', 'UNKNOWN: Gloo')      # of jax's errors
ALONE, JOINING, JOINED = range(3)

_phase, _code = ALONE, None      # _code: with which this process is about to end
_last_words = threading.Lock()   # whoever holds it says the last line


# --- Where they are ---

def may_be_several(process):
    """Whether the environment, or `process`, as of strategies.pjrt.find, names other processes."""
    tasks = int(os.environ.get('SLURM_STEP_NUM_TASKS', '1'))
    return bool(process or 'TF_CONFIG' in os.environ or tasks > 1 or known_to_jax('tpu'))


def known_to_jax(strategy):
    """Whether jax finds several processes by itself: those of Open MPI, or the hosts of the TPU that is used."""
    return of_open_mpi() > 1 or strategy == 'tpu' and doctor.look().has_tpu and of_tpu_slice() > 1


def import_quiet_jax():
    """Imports jax, if it is there, so that its C++ says nothing where it aborts: one of several workers says it here.

    It takes its level of logging at its import, and TensorFlow imports it.
    """
    level = os.environ['TF_CPP_MIN_LOG_LEVEL']
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '4'
    with contextlib.suppress(ImportError):
        import jax  # noqa: F401
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = level


def of_open_mpi():
    """Number of processes that Open MPI's mpirun started, if jax can find them by it."""
    return int(os.environ.get('OMPI_COMM_WORLD_SIZE', '1')) if 'OMPI_MCA_orte_hnp_uri' in os.environ else 1


@functools.cache
def of_tpu_slice():
    """Number of hosts of the TPU slices that this machine is part of: by GKE's variables, or Google's metadata server.

    jax looks them up in the same way, but waits for minutes where there is no such server.
    """
    names = os.environ.get('TPU_PROCESS_ADDRESSES', os.environ.get('TPU_WORKER_HOSTNAMES'))
    slices = os.environ.get('MEGASCALE_NUM_SLICES')
    if names is None and 'TPU_SKIP_MDS_QUERY' not in os.environ:
        names = _metadata('worker-network-endpoints')
        if names and slices is None:
            slices = ''.join(re.findall(r"MEGASCALE_NUM_SLICES: *'?(\d+)", _metadata('tpu-env')))
    return len((names or '').split(',')) * int(slices or 1)


def _metadata(name):
    """An attribute of this virtual machine at Google; '' without one. By number: a name's look-up has no time limit."""
    address = os.environ.get('GCE_METADATA_IP', '169.254.169.254')
    request = urllib.request.Request(f'http://{address}/computeMetadata/v1/instance/attributes/{name}',
                                     headers={'Metadata-Flavor': 'Google'})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=METADATA) as answer:
            return answer.read().decode()
    except OSError:
        return ''


# --- How they meet ---

def join(jax, place):
    """Returns when all processes have come. Before anything else uses a device.

    place: (address of process 0, number of processes, this one's number), or () where jax finds that by itself.

    Raises:
        RunError: this process cannot join. If others do not come within ARRIVAL seconds, the process ends.
    """
    global _phase
    arguments = {'heartbeat_timeout_seconds': HEARTBEAT, 'initialization_timeout': ARRIVAL,
                 'shutdown_timeout_seconds': int(FAREWELL)}
    if place:      # nothing is looked up then, and each process has the GPUs that it sees
        arguments |= dict(zip(('coordinator_address', 'num_processes', 'process_id'), place))
        arguments['cluster_detection_method'] = 'deactivate'
        _check_port(*place)
    with contextlib.suppress(AttributeError):      # it would take SIGTERM from Python
        jax.config.update('jax_enable_preemption_service', False)
    _phase, failures = JOINING, []
    _catch_abort()

    def connect():
        try:
            jax.distributed.initialize(**arguments)
        except Exception as error:
            failures.append(error)
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)      # in between Python answers signals
    if failures:
        where = f' by {place[0]}' if place else ''
        raise RunError(f'no connection to the other workers{where}: {" ".join(str(failures[0]).split())[:200]}')
    _phase = JOINED


def _check_port(address, _, number):
    """jax 0.10.2 dies by SIGSEGV if process 0 cannot listen."""
    if number == 0:
        try:
            socket.create_server(('', int(address.rpartition(':')[2]))).close()
        except (OSError, OverflowError) as error:
            raise RunError(f'the first worker cannot listen at {address}: {error}') from None


# --- How they end ---

def leave(code):
    """Ends this process, if it is one of several, with an exit code. Returns if it is alone, or if all are done.

    jax would wait for the others at its end, for minutes. One that fails must not: the others learn of it by its end.
    """
    global _phase, _code
    if _phase == ALONE:
        return
    if _phase == JOINED and code in (0, PREEMPTED, INTERRUPTED):
        _code, done = code, threading.Event()

        def shut_down():
            with contextlib.suppress(Exception):
                sys.modules['jax'].distributed.shutdown()
                done.set()
        threading.Thread(target=shut_down, daemon=True).start()
        if done.wait(FAREWELL):
            _phase = ALONE
            return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_alone():
    return _phase == ALONE


def is_loss(error):
    """Whether jax raises this when another process is lost; with one process alone it means something else."""
    return _phase != ALONE and str(error).startswith(CODES)


def claim_last_words():
    """Returns if nobody else is about to say that a worker was lost; otherwise that ends the process."""
    if not _last_words.acquire(blocking=False):
        time.sleep(FAREWELL)


def _catch_abort():
    """Installs `_aborted` in C: a handler of Python's would wait for the main thread, which may hang."""
    global _handler      # ctypes keeps none
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_aborted)
    ctypes.CDLL(None).signal(ctypes.c_int(signal.SIGABRT), _handler)


def _aborted(number):
    """In the thread that called abort()."""
    if _code is not None:      # all is done here
        os._exit(_code)
    if not _last_words.acquire(blocking=False):
        time.sleep(FAREWELL)      # for the main thread, which says it
        os._exit(FAILED)
    message = LOST
    if _phase == JOINING:
        message = f'not all workers came within {ARRIVAL} s; start them together, with the same addresses'
    elif _is_whole():
        message = 'jax aborted this process; with TF_CPP_MIN_LOG_LEVEL=0 in the environment it says why'
    os.write(2, f'error: {message}\n'.encode())      # print could wait for a lock that another thread holds
    os._exit(FAILED)


def _is_whole():
    """Whether the coordinator still answers this process, so that nobody is lost."""
    from jax._src import distributed  # jax has no public way to ask
    answers = []

    def ask():
        try:
            distributed.global_state.client.key_value_try_get('congruent')
        except Exception as error:
            answers.append('NOT_FOUND' in str(error))
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(1)
    return any(answers)
