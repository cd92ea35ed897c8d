"""Processes that are compared: each does what it is asked, one after the other or several at once, and sleeps between.

The command starts itself again with other flags; such a process calls `serve`, and the command asks it.
"""

import json
import subprocess
import sys
import time

from errors import RunError


class Process:
    """A process that serves. It ends with this one.

    Args:
        arguments: of Python. environment: {name: value}, complete.
    """

    def __init__(self, arguments, environment):
        self._process = subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True, env=environment)

    def send(self, request):
        print(json.dumps(request), file=self._process.stdin, flush=True)

    def receive(self):
        line = self._process.stdout.readline()
        if not line:
            raise RunError('a process of the benchmark ended before its time; it has said why')
        return json.loads(line)

    def close(self):
        self._process.kill()
        self._process.communicate()


def ask(processes, what, count):
    """All of them at the same time. Returns their answers."""
    for process in processes:
        process.send({'what': what, 'count': count})
    return answers(processes)


def answers(processes):
    return [process.receive() for process in processes]


def serve(facts, asked):
    """One process: says what it is, and then times what it is asked for, until nobody asks any more.

    Args:
        facts: what it says of itself, for JSON. asked: {name: function (count)}.
    """
    print(json.dumps(facts), flush=True)
    ended, cpu_ended = time.perf_counter(), time.process_time()
    for line in sys.stdin:
        request = json.loads(line)
        started, cpu_started = time.perf_counter(), time.process_time()
        share = (cpu_started - cpu_ended) / (started - ended)
        asked[request['what']](request['count'])
        ended, cpu_ended = time.perf_counter(), time.process_time()
        print(json.dumps({'count': request['count'], 'seconds': ended - started,
                          'cpu_seconds': cpu_ended - cpu_started, 'cpu_share_before': share}), flush=True)
