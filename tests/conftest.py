"""Quiet, deterministic TensorFlow on the CPU for every test process."""

import os
import pathlib
import subprocess
import sys

import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')

ROOT = pathlib.Path(__file__).parent.parent


def clean_environment(**changes):
    """The environment without what this process set for itself: TensorFlow's noise is part of what is tested."""
    environment = {k: v for k, v in os.environ.items() if k not in ('TF_CPP_MIN_LOG_LEVEL', 'TF_CONFIG', 'TPU_NAME')}
    return {**environment, **changes}


@pytest.fixture(scope='session')
def run_python():
    """run_python(arguments, ...) -> CompletedProcess: a command of the project in a process of its own."""
    def run(*arguments, check=True, timeout=600, cwd=ROOT, env=None):
        done = subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, timeout=timeout, text=True,
                              capture_output=True, env=clean_environment(**(env or {})))
        if check and done.returncode:
            raise AssertionError(f'{arguments} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}')
        return done
    return run
