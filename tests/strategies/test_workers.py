"""The launcher of local workers, with real processes: small Python programs in place of training."""

import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, clean_environment

# argv: 'terminal' or '', {constant: seconds}, number of workers, a worker's program.
LAUNCHER = '''
import fcntl, json, sys, termios
from strategies import workers
if sys.argv[1]:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
vars(workers).update(json.loads(sys.argv[2]))
BEFORE
sys.exit(workers.launch([sys.executable, '-c', sys.argv[4]], int(sys.argv[3])))
'''
# What every worker's program begins with.
WORKER = '''
import json, os, signal, sys, time
config = json.loads(os.environ['TF_CONFIG'])
index = config['task']['index']
'''
WAIT = 'print("pid", os.getpid()); time.sleep(60)\n'
SHORT = {'GRACE': .6, 'LAST_WORDS': .2, 'TERM_SECONDS': .2, 'POLL': .01}
DEAF = 'signal.signal(signal.SIGTERM, signal.SIG_IGN)\n'


def start(program, count=2, constants=SHORT, terminal=None, before='', **pipes):
    """before: lines that the launcher's process runs first."""
    if terminal is not None:
        pipes = {'stdin': terminal, 'stdout': terminal, 'stderr': terminal, 'start_new_session': True}
    arguments = ['x' if terminal is not None else '', json.dumps(constants), str(count), WORKER + program]
    return subprocess.Popen([sys.executable, '-c', LAUNCHER.replace('BEFORE', before), *arguments], cwd=ROOT, text=True,
                            env=clean_environment(PYTHONUNBUFFERED=''),
                            **{'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, **pipes})


def finish(process):
    """(exit code, lines of stdout, lines of stderr)."""
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, sorted(out.splitlines()), sorted(err.splitlines())


def run(program, count=2, **kwargs):
    return finish(start(program, count, **kwargs))


def pids(process, count=2):
    """Reads the workers' process ids, while they run: what they print is shown at once."""
    lines = sorted(process.stdout.readline() for _ in range(count))
    assert [re.fullmatch(r'\[worker (\d)\] pid \d+\n', line)[1] for line in lines] == [str(i) for i in range(count)]
    return [int(line.split()[-1]) for line in lines]


def alive(pid):
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_gone(numbers):
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in numbers):
        assert time.monotonic() < deadline, 'a worker outlived the launcher'
        time.sleep(0.01)


def test_each_worker_has_its_place_in_one_cluster():
    program = '''
import socket
host, port = config['cluster']['worker'][index].split(':')
with socket.create_server((host, int(port))):      # free, so that the worker can take it
    print(os.environ['TF_CONFIG'])
'''
    code, out, err = run(program, count=4)
    assert (code, err) == (0, [])
    configs = [json.loads(line.removeprefix(f'[worker {i}] ')) for i, line in enumerate(out)]
    assert [config['task'] for config in configs] == [{'type': 'worker', 'index': i} for i in range(4)]
    assert all(config['cluster'] == configs[0]['cluster'] for config in configs)
    assert len(set(configs[0]['cluster']['worker'])) == 4


def test_every_line_says_whose_it_is_and_none_is_lost():
    process = start(r'''
print(*range(10000), sep='\n')
os.write(1, 'caf\u00e9 \\ud'.encode() + b'\xff: no newline')
print('a note', file=sys.stderr)
''')
    time.sleep(.5)               # the workers have ended, and our pipe is full
    code, out, err = finish(process)
    assert code == 0 and err == ['[worker 0] a note', '[worker 1] a note']
    for index in range(2):
        lines = [line.removeprefix(f'[worker {index}] ') for line in out if line.startswith(f'[worker {index}] ')]
        assert sorted(lines) == sorted([*map(str, range(10000)), 'caf\u00e9 \\ud\ufffd: no newline'])


def test_an_error_that_several_workers_say_is_shown_once():
    code, out, err = run('''
print('error: the same', file=sys.stderr)
print('error: mine', index, file=sys.stderr)
print('not an error', file=sys.stderr)
''')
    assert code == 0
    assert sorted(line.removeprefix(f'[worker {line[8]}] ') for line in err) == [
        'error: mine 0', 'error: mine 1', 'error: the same', 'not an error', 'not an error']


@pytest.mark.parametrize('program, expected, message', [
    ('', 0, None),
    ('time.sleep(index * .8)', 0, None),                                       # longer than every limit
    ('time.sleep(index * .2); sys.exit(75)', 75, None),                        # it saves
    ('sys.exit(75 if index else 0)', 75, None),
    ('time.sleep(index * .3); sys.exit(1 if index else 75)', 75, None),        # it met the absence of the other
    ('sys.exit(130)', 130, None),
    ('sys.exit(75) if index else time.sleep(60)', 75, 'worker 0 still ran . s after worker 1 had stopped: killed'),
    ('sys.exit(2)', 2, 'worker [01] failed with exit code 2; the others were stopped'),
    ('sys.exit(3) if index else time.sleep(60)', 3, 'worker 1 failed with exit code 3; the others were stopped'),
    ('time.sleep(.3 * (1 - index)); sys.exit(1 + 2 * index)', 3, 'worker 1 failed with exit code 3; the .* stopped'),
    (DEAF + 'sys.exit(3) if index else time.sleep(60)', 3, 'worker 1 failed with exit code 3; the others were stopped'),
    ('os.kill(os.getpid(), 11 if index else 0); time.sleep(60)', 1, 'worker 1 was killed by SIGSEGV; .* checkpoint'),
    ('os.kill(os.getpid(), 15) if index else time.sleep(60)', 1, 'worker 1 was killed by SIGTERM; .* checkpoint'),
])
def test_exit_codes(program, expected, message):
    code, _, err = run(program)
    assert code == expected
    assert len(err) == bool(message) and re.fullmatch(f'error: {message}' if message else '', ''.join(err))


def test_a_death_by_a_signal_is_the_cause_of_what_is_seen_with_it():
    before = 'read = workers._Worker.read\nworkers._Worker.read = lambda w, show: w._process.wait() and read(w, show)'
    code, _, err = run('os.kill(os.getpid(), 9) if index else sys.exit(2)', before=before)      # both ended
    assert code == 1 and 'worker 1 was killed by SIGKILL' in err[0]


def test_a_failing_worker_has_said_why_and_the_others_have_time_to():
    code, _, err = run('''
time.sleep(.5 * (1 - index))
sys.exit('error: no data' if index else 'error: worker 1 is lost')
''', constants={'LAST_WORDS': 10.})
    assert code == 1
    assert err == ['[worker 0] error: worker 1 is lost', '[worker 1] error: no data',
                   'error: worker 1 failed with exit code 1; the others were stopped']


def test_a_killed_worker_ends_all_even_one_that_hangs():
    process = start(DEAF + WAIT, count=3)
    workers = pids(process, 3)
    os.kill(workers[1], signal.SIGKILL)
    code, _, err = finish(process)
    assert code == 1
    assert err == ['error: worker 1 was killed by SIGKILL; the other workers were stopped. '
                   'The same command resumes from the newest checkpoint']
    assert not any(map(alive, workers))


def test_a_program_that_is_not_there():
    code, _, err = run('', before='sys.exit(workers.launch(["nowhere"], 2))')
    assert code == 1 and sum('error: No such file or directory: nowhere' in line for line in err) == 1


COUNT_SIGNALS = '''
received = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: received.append(number))
print('pid', os.getpid())
while not received:
    time.sleep(.01)
time.sleep(.3)                   # a second one would come now
print('received', *map(int, received))
sys.exit(75 if received[0] == signal.SIGTERM else 130)
'''


@pytest.mark.parametrize('number, expected', [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_every_worker_once(number, expected):
    process = start(COUNT_SIGNALS)
    pids(process)
    process.send_signal(number)
    code, out, err = finish(process)
    assert (code, err) == (expected, [])
    assert out == [f'[worker {i}] received {int(number)}' for i in range(2)]


def test_a_second_interrupt_is_a_second_one_for_every_worker():
    process = start(COUNT_SIGNALS.replace('while not received', 'while len(received) < 2'))
    pids(process)
    process.send_signal(signal.SIGINT)
    time.sleep(.3)
    process.send_signal(signal.SIGINT)
    assert finish(process)[:2] == (130, [f'[worker {i}] received 2 2' for i in range(2)])


@pytest.mark.parametrize('number, expected', [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_that_comes_before_a_worker_can_handle_it(number, expected):
    process = start('signal.signal(signal.SIGINT, signal.SIG_DFL)\n' + WAIT)
    pids(process)
    process.send_signal(number)
    assert finish(process) == (expected, [], [])


def test_no_worker_outlives_a_launcher_that_is_killed():
    process = start(DEAF + WAIT, count=3)
    workers = pids(process, 3)
    assert all(map(alive, workers))
    process.kill()
    assert_gone(workers)
    process.communicate()


def test_no_worker_outlives_a_launcher_that_fails():
    process = start(DEAF + WAIT, before='workers._wait = lambda *_: 1 / len(sys.stdin.read())', stdin=subprocess.PIPE)
    workers = pids(process)
    code, _, err = finish(process)         # which closes its stdin
    assert code == 1 and any('ZeroDivisionError' in line for line in err)
    assert not any(map(alive, workers))


def test_what_a_worker_started_ends_with_it():
    process = start('import subprocess\nchild = subprocess.Popen(["sleep", "60"])\nprint("pid", child.pid)')
    children = pids(process)
    assert finish(process)[0] == 0
    assert_gone(children)


def test_nobody_reads_the_output_any_more():
    process = start('while True:\n    print("x" * 1000)')
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        try:
            assert process.wait(30) != 0
        finally:
            process.kill()
        assert 'BrokenPipeError' in process.stderr.read()


def test_on_a_terminal():
    """Worker 0 has the terminal for its bar; a line of another clears the bar first; Ctrl-C comes once."""
    master, terminal = pty.openpty()
    process = start('print(f"terminal {sys.stderr.isatty()}", file=sys.stderr)\n' + COUNT_SIGNALS, terminal=terminal)
    os.close(terminal)
    try:
        shown = read_until(master, r'(?s)(pid.*){2}')
        os.write(master, b'\x03')
        shown += read_until(master, r'(?s)(received 2\r\n.*){2}')
        assert process.wait(10) == 130
    finally:
        process.kill()
        os.close(master)
    assert re.search(r'(?m)^terminal True', shown.replace('\r\x1b[K', '\n'))
    assert '\r\x1b[K[worker 1] terminal False' in shown
    for index in range(2):
        assert f'\r\x1b[K[worker {index}] received 2\r\n' in shown


def read_until(file, pattern):
    text, deadline = '', time.monotonic() + 20
    while not re.search(pattern, text):
        assert time.monotonic() < deadline, text
        if select.select([file], [], [], 0.1)[0]:
            text += os.read(file, 4096).decode()
    return text
