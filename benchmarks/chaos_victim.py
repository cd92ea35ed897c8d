"""A run of train.py as the victim of a kill: started, frozen, asked where it is, killed by SIGKILL.

Where it is, is read from the stacks of its Python threads by py-spy, while every process of the run stands still.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

from errors import RunError
from training.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parent.parent
POLL, LOOK_EVERY = 0.001, (0.02, 0.2)      # seconds: between looks at a folder; between looks at the stacks
LIMIT = 600.                               # seconds after which a run hangs
PLACES = ('start', 'step', 'checkpoint write', 'evaluation', 'export', 'results')
UNREAD = 20                                # looks that may fail
UNKNOWN = 'unknown'                        # py-spy could not read the process
DAMAGES = ('truncated', 'one bit flipped', 'second half zeroed')

# The first whose functions are all on one thread's stack. What is on none of them is 'start': imports, build, restore.
_STACKS = {
    'checkpoint write': {('training/checkpoint.py', '_write'), ('training/files.py', 'write_atomically')},
    'results': {('experiment/workdir.py', 'finish')},
    'export': {('experiment/export.py', 'export_run')},
    'evaluation': {('training/evaluation.py', '__call__')},
    'step': {('training/loop.py', 'train')},
}


def classify(threads):
    """What `py-spy dump --json --locals` says of a process -> one of PLACES."""
    stacks = [{_function(frame) for frame in thread['frames']} for thread in threads]
    for place, functions in _STACKS.items():
        if any(functions <= stack for stack in stacks):
            return 'start' if place == 'step' and _in_first_call(threads) else place
    return 'start'


def _function(frame):
    path = pathlib.Path(frame['filename'])
    return (str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)), frame['name'].rpartition('.')[2]


def _in_first_call(threads):
    """Whether the loop still traces and compiles: its local variable `first` says so."""
    return any(variable['name'] == 'first' and variable['repr'] == 'True' for thread in threads
               for frame in thread['frames'] if _function(frame) == ('training/loop.py', 'train')
               for variable in frame['locals'] or ())


class Victim:
    """One start of a run, perhaps with workers of its own.

    Args:
        arguments: of Python. workdir: of the run. log: file for what it prints.
    """

    def __init__(self, arguments, workdir, log):
        self.workdir, self._log, self._began = workdir, log, time.monotonic()
        self._left_over = set(_temporary_files(workdir))      # of starts that were killed
        self._steps_before = self.checkpoint_steps()
        environment = {k: v for k, v in os.environ.items() if k not in ('TF_CONFIG', 'TPU_NAME')}
        with open(log, 'w') as file:
            self._process = subprocess.Popen([sys.executable, *arguments, f'--workdir={workdir}'], cwd=ROOT,
                                             env={**environment, 'CUDA_VISIBLE_DEVICES': '', 'PYTHONUNBUFFERED': '1'},
                                             stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)

    @property
    def seconds(self):
        return time.monotonic() - self._began

    @property
    def output(self):
        return self._log.read_text(errors='replace')

    @property
    def said(self):
        """How it began: 'a new run of 60', 'resuming at step 15 of 60', 'nothing to do'; '' before it says so."""
        for line in self.output.splitlines():
            if 'workdir   ' in line:
                return line.rpartition(', ')[2]
            if line.endswith(': nothing to do'):
                return 'nothing to do'
        return ''

    def checkpoint_steps(self):
        return Checkpoints(self.workdir / 'checkpoints').steps()

    def running(self):
        if self.seconds > LIMIT:
            self.end()
            raise RunError(f'the run in {self.workdir} hangs: it was still running after {LIMIT:.0f} s\n{self.output}')
        return self._process.poll() is None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def wait_until_it_says_how_it_began(self):
        """Returns the seconds since it was started; it is about to train."""
        while self.running() and not self.said:
            time.sleep(0.02)
        return self.seconds

    def wait(self):
        """Returns the exit code."""
        while self.running():
            time.sleep(0.02)
        return self._process.returncode

    def end(self):
        """Whatever is left of it."""
        if self._process.poll() is None:
            for pid in [*self._workers().values(), self._process.pid]:
                _send(pid, signal.SIGKILL)
            self._process.wait()

    def freeze_in(self, aim, moment, draw):
        """Waits for the aim and freezes the run there. Returns (place, {process: pid}), or None if it ended before.

        Args:
            aim: 'random', `moment` seconds after the run has begun to train; else one of PLACES.
            draw: random.Random.
        """
        begun = self.wait_until_it_says_how_it_began()
        passed = draw.randrange(1, 3)      # checkpoints that are written before anything is aimed at
        unread = 0
        while self.running():
            if self._due(aim, self.seconds - begun - moment, passed, draw):
                processes = self._freeze()
                place = self._place(processes)
                unread += place == UNKNOWN     # frozen while it changed its own stack, it is read a moment later
                aimed_well = place == aim or (aim == 'random' and place != UNKNOWN) or unread > UNREAD
                if self._process.poll() is None and aimed_well:
                    return place, processes
                self._thaw(processes)
        return None

    def kill(self, processes, target):
        """SIGKILL for one process of a frozen run. Returns the exit code of the command, when all have ended."""
        _send(processes[target], signal.SIGKILL)
        self._thaw({name: pid for name, pid in processes.items() if name != target})
        code = self.wait()
        deadline = time.monotonic() + 20
        while left := [name for name, pid in processes.items() if _state(pid) not in ('', 'Z')]:
            if time.monotonic() > deadline:
                self.end()
                raise RunError(f'{" and ".join(left)} of {self.workdir} outlived the kill of {target}\n{self.output}')
            time.sleep(0.02)
        return code

    def _due(self, aim, late, passed, draw):
        """Whether to freeze the run now and look where it is."""
        if aim == 'random':
            time.sleep(POLL)
            return late >= 0
        if aim == 'results':
            return (self.workdir / 'results.json').exists() or any(
                f.name.startswith('.results') for f in self._writing())
        if aim == 'checkpoint write':
            time.sleep(POLL)
            return any(f.parent.name == 'checkpoints' for f in self._writing()) and self._written() >= passed
        time.sleep(draw.uniform(*LOOK_EVERY))
        return self._written() >= passed or aim == 'export'

    def _written(self):
        return len(set(self.checkpoint_steps()) - set(self._steps_before))

    def _writing(self):
        return [f for f in _temporary_files(self.workdir) if f not in self._left_over]

    def _workers(self):
        """{'worker 0': pid, ...}: the children of a launcher."""
        found = {}
        for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
            try:
                parent = int(stat.read_text().rpartition(')')[2].split()[1])
                if parent == self._process.pid:
                    variables = (stat.parent / 'environ').read_text().split('\0')
                    config = next((v for v in variables if v.startswith('TF_CONFIG=')), None)
                    if config:
                        index = json.loads(config.removeprefix('TF_CONFIG='))['task']['index']
                        found[f'worker {index}'] = int(stat.parent.name)
            except (OSError, ValueError):      # it has just ended
                pass
        return dict(sorted(found.items()))

    def _freeze(self):
        workers = self._workers()
        processes = {'launcher' if workers else 'process': self._process.pid, **workers}
        for pid in processes.values():
            _send(pid, signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while any(_state(pid) not in ('T', 'Z', '') for pid in processes.values()) and time.monotonic() < deadline:
            time.sleep(POLL)
        return processes

    def _thaw(self, processes):
        for pid in processes.values():
            _send(pid, signal.SIGCONT)

    def _place(self, processes):
        """Where the run is: the place of its chief, which writes all files."""
        if (self.workdir / 'results.json').exists():
            return 'results'       # written: it says so and ends
        done = subprocess.run([py_spy(), 'dump', '--nonblocking', '--json', '--locals', '--pid',
                               str(processes.get('worker 0', self._process.pid))], capture_output=True, text=True)
        return UNKNOWN if done.returncode else classify(json.loads(done.stdout))


def damage(file, how, draw):
    """Spoils a file in one of the DAMAGES."""
    data = bytearray(file.read_bytes())
    if how == 'truncated':
        del data[draw.randrange(len(data)):]
    elif how == 'one bit flipped':
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    else:
        data[len(data) // 2:] = bytes(len(data) - len(data) // 2)
    file.write_bytes(data)


def _temporary_files(workdir):
    return [*workdir.glob('.*.tmp'), *workdir.glob('checkpoints/.*.tmp')]


def py_spy():
    """The program that was installed beside this Python."""
    beside = pathlib.Path(sys.executable).with_name('py-spy')
    return str(beside) if beside.exists() else 'py-spy'


def _send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _state(pid):
    """A letter of /proc: T is stopped, Z a zombie; '' if there is no such process."""
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ''


def seeded(*names):
    """A random.Random of its own for each (seed, name, ...)."""
    return random.Random('/'.join(map(str, names)))
