"""Quiet, deterministic TensorFlow on the CPU for every test process."""

import importlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')
# PyTorch's builds with CUDA must be loaded before TensorFlow. Otherwise Triton, which comes with them, crashes the
# process when it is loaded, and the start of CUDA fails with a warning.
if importlib.util.find_spec('torch') and importlib.util.find_spec('triton'):
    importlib.import_module('torch._dynamo')

ROOT = pathlib.Path(__file__).parent.parent
# The folder of real data sets. Only the tests that need one read it: every other test is the same without it. The other
# variable is for pytest-xdist, whose workers inherit the environment.
FOUND = os.environ.setdefault('CONGRUENT_TEST_DATA', os.environ.pop('CONGRUENT_DATA', ''))
REAL_DATA = pathlib.Path(FOUND or '/nothing')


def clean_environment(**changes):
    """The environment without what this process set for itself: TensorFlow's noise is part of what is tested."""
    environment = {k: v for k, v in os.environ.items() if k not in ('TF_CPP_MIN_LOG_LEVEL', 'TF_CONFIG')
                   and not k.startswith('TPU_')}     # TensorFlow itself sets TPU_LIBRARY_PATH
    return {**environment, **changes}


def copy_project(folder):
    """The files of the project, without what git ignores, in a folder of their own."""
    names = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.splitlines()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


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


@pytest.fixture
def measured(record_property):
    """measured(equality, of what, on what, largest difference): printed at the end of the session."""
    return lambda equality, what, where, worst: record_property('measured', (equality, what, where, float(worst)))


def pytest_terminal_summary(terminalreporter):
    reports = [report for kind in ('passed', 'failed') for report in terminalreporter.getreports(kind)]
    rows = [value for report in reports if report.when == 'call'
            for name, value in report.user_properties if name == 'measured']
    if rows:
        terminalreporter.section('largest differences, relative to the largest element of a tensor')
        for equality, what, where, worst in rows:
            terminalreporter.write_line(f'{equality}  {what:<62} {where:<4} {worst:.1e}')
