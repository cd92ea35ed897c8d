"""What an installation holds: every module of the project, so that it can be imported from any folder."""

import configparser
import subprocess
import sys
import sysconfig
import venv

import pytest
import setuptools

from tests.conftest import ROOT, copy_project


@pytest.fixture(scope='module')
def config():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg', encoding='utf-8')
    return config


def modules():
    """Paths of the Python files that git knows or would take, but for the tests."""
    names = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '*.py'], cwd=ROOT, capture_output=True,
                           text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in names if not name.startswith('tests/') and (ROOT / name).exists()]


def test_every_folder_of_modules_is_a_package_that_is_installed(config):
    found = setuptools.find_packages(ROOT, exclude=config['options.packages.find']['exclude'].split())
    folders = {'.'.join(file.parent.relative_to(ROOT).parts) for file in modules() if file.parent != ROOT}
    assert set(found) == folders


def test_every_module_at_the_root_is_installed(config):
    assert set(config['options']['py_modules'].split()) == {file.stem for file in modules() if file.parent == ROOT}


@pytest.mark.slow
def test_the_wheel_can_be_used_from_another_folder(tmp_path):
    def run(*command):
        done = subprocess.run([str(part) for part in command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
    project = copy_project(tmp_path / 'project')
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    run(*pip, 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', tmp_path, project)
    venv.create(tmp_path / 'venv', symlinks=True)
    python = tmp_path / 'venv' / 'bin' / 'python'
    run(*pip, '--python', python, 'install', '--no-deps', *tmp_path.glob('*.whl'))
    # Its dependencies are this environment's; an editable install of the project here is not followed.
    site = run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip()
    (tmp_path / 'dependencies').write_text(sysconfig.get_path('purelib'))
    (tmp_path / 'dependencies').rename(f'{site}/dependencies.pth')
    assert run(python, '-c', 'import train; print(train.__file__)').startswith(site)
    names = ['.'.join(f.relative_to(ROOT).with_suffix('').parts) for f in modules() if 'benchmarks' not in f.parts]
    run(python, '-c', f'import importlib.util\nfor name in {names}: assert importlib.util.find_spec(name), name')
