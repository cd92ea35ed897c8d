"""The fast tier under other versions of Python and of the packages, each in a virtual environment of its own.

    python -m tests.versions                       what there is, and the Pythons that are found here
    python -m tests.versions oldest --python=3.12  one of them: 4 GB in build/versions/, about 10 minutes on 2 cores
    python -m tests.versions --pick=COMMIT         the one that falls to a commit: over time, all of them

An environment gets the versions of its combination first, as if they had been there before, as on Colab. Installing the
project must then replace nothing. Needs no more than Python and pip; Pythons are looked for on PATH and in pyenv.
"""

import argparse
import configparser
import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
PYTHONS = '3.11', '3.12', '3.13'


def setup():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg', encoding='utf-8')
    return config


def requirements(*extras):
    """The requirements in setup.cfg, with those of the extras and of the extras that these name."""
    config = setup()
    lines = '\n'.join([config['options']['install_requires'], *(config['options.extras_require'][e] for e in extras)])
    found = {}                                  # each once, in order
    for line in lines.split('\n'):
        if own := re.fullmatch(rf'{config["metadata"]["name"]}\[(.*)\]', line):
            found |= dict.fromkeys(requirements(*own[1].split(',')))
        elif line and not line.startswith('#'):
            found[line] = None
    return list(found)


def lowest(requirement):
    """'keras >= 3.13, < 3.16; MARKER' -> 'keras == 3.13.*; MARKER'; pins stay."""
    return re.sub(r'>= ?([\d.]+), ?< ?[\d.]+', r'== \1.*', requirement)


# The versions that an environment starts with. Nothing here asks for protobuf: Colab has this one. Newer releases of
# tensorflow-metadata say that they run beside it, and do not.
COMBINATIONS = {
    'oldest': [*map(lowest, requirements('dev')), 'protobuf == 5.29.*', 'tensorflow-metadata == 1.17.*'],
    'between': ['tensorflow == 2.21.*', 'keras == 3.14.*'],
    'newest': [],
}


@functools.cache
def find(version):
    """The command of a Python that starts, or None: pyenv's shims on PATH start only the one that is chosen."""
    for command in (shutil.which(f'python{version}'),
                    *sorted(map(str, pathlib.Path.home().glob(f'.pyenv/versions/{version}.*/bin/python')))):
        if command and subprocess.run([command, '-c', 'import ensurepip, ssl'], capture_output=True).returncode == 0:
            return command


def pick(commit):
    """(combination, version of Python) for a commit; what the tests run with by default is left out."""
    default = 'newest', '{}.{}'.format(*sys.version_info)
    pairs = [(name, version) for name in COMBINATIONS for version in PYTHONS if find(version)]
    pairs = [pair for pair in pairs if pair != default]
    return pairs[int(commit, 16) % len(pairs)]


def replaced(python, *arguments):
    """{package: (installed version, version that pip would install in its place)}; nothing is installed."""
    def pip(*command):
        done = subprocess.run([python, '-m', 'pip', *command], cwd=ROOT, check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)
    there = {package['name'].lower().replace('_', '-'): package['version'] for package in pip('list', '--format=json')}
    report = pip('install', '--quiet', '--dry-run', '--report=-', *arguments)['install']
    wanted = {item['metadata']['name'].lower().replace('_', '-'): item['metadata']['version'] for item in report}
    return {name: (there[name], version) for name, version in wanted.items() if name in there}


def run(name, version):
    """Makes the environment anew, runs the fast tier in it and exits with the tests' exit code."""
    if not find(version):
        sys.exit(f'Python {version} is not found here')
    folder = ROOT / 'build' / 'versions' / f'{name}-{version}'
    print(f'{name} on Python {version}, {find(version)}: {folder}', flush=True)
    subprocess.run([find(version), '-m', 'venv', '--clear', folder], check=True)
    python = folder / 'bin' / 'python'
    install = [python, '-m', 'pip', 'install', '--quiet', '--prefer-binary']
    if COMBINATIONS[name]:
        subprocess.run([*install, *COMBINATIONS[name]], check=True)
        if changes := replaced(python, '.[notebooks]'):
            sys.exit(f'Installing the project replaces {changes}')
    with open(folder / 'there.txt', 'w') as there:
        subprocess.run([python, '-m', 'pip', 'freeze'], check=True, stdout=there)
    subprocess.run([*install, '--constraint', there.name, '--editable', '.[dev]'], cwd=ROOT, check=True)
    subprocess.run([python, '-m', 'pip', 'freeze'], check=True)
    sys.exit(subprocess.run([python, '-m', 'pytest', '-n', '2'], cwd=ROOT).returncode)


def main():
    parser = argparse.ArgumentParser(prog='python -m tests.versions', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('combination', nargs='?', choices=COMBINATIONS, help='versions of the packages')
    parser.add_argument('--python', choices=PYTHONS, default=PYTHONS[0], help='version of Python (default: 3.11)')
    parser.add_argument('--pick', metavar='COMMIT', help='hash of a commit, which selects both')
    args = parser.parse_args()
    if args.pick:
        run(*pick(args.pick))
    if args.combination:
        run(args.combination, args.python)
    for version in PYTHONS:
        print(f'Python {version}: {find(version) or "not found"}')
    for name, pins in COMBINATIONS.items():
        print(f'{name}: {", ".join(pins) or "the newest of every package"}')


if __name__ == '__main__':
    main()
