"""What tests/versions.py reads from setup.cfg and asks of pip; the environments themselves are made by .ci/run."""

import json
import shutil
import subprocess
import sys
import venv

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests import versions
from tests.conftest import ROOT

RANGES = versions.requirements('dev')


def test_the_pythons_are_those_that_are_allowed():
    allowed = SpecifierSet(versions.setup()['options']['python_requires'])
    assert [f'3.{minor}' for minor in range(30) if f'3.{minor}' in allowed] == list(versions.PYTHONS)


def test_the_oldest_are_the_lower_ends_of_all_ranges():
    oldest = versions.COMBINATIONS['oldest']
    for text in RANGES:
        required = Requirement(text)
        found, = (pin for pin in map(Requirement, oldest) if (pin.name, pin.marker) == (required.name, required.marker))
        assert found.extras == required.extras, text
        for lower in (end.version for end in required.specifier if end.operator == '>='):
            assert str(found.specifier) == f'=={lower}.*' and lower in required.specifier, text
        assert all(end.operator == '==' for end in found.specifier), text


def test_the_pins_for_a_tpu_lie_in_the_ranges():
    ranges = {required.name: required.specifier for required in map(Requirement, RANGES)}
    for line in (ROOT / 'requirements-tpu.txt').read_text().splitlines():
        if not line.startswith(('#', 'libtpu')):
            (pin,) = (end.version for end in Requirement(line).specifier)
            assert pin in ranges[Requirement(line).name.removesuffix('-tpu')], line


def test_dev_does_not_install_pytorch():
    assert not any(Requirement(text).name in ('torch', 'torchvision') for text in RANGES)


def test_every_combination_falls_to_some_commit():
    picked = {versions.pick(f'{commit:040x}') for commit in range(100)}
    found = {version for version in versions.PYTHONS if versions.find(version)}
    pairs = {(name, version) for name in versions.COMBINATIONS for version in found}
    assert picked == pairs - {('newest', '{}.{}'.format(*sys.version_info))}
    assert versions.pick(40 * 'a') == versions.pick(40 * 'a')


def test_the_notebook_installs_what_is_checked_to_replace_nothing():
    cells = json.loads((ROOT / 'notebooks' / 'train.ipynb').read_text())['cells']
    install, = (line for cell in cells for line in cell['source'] if 'pip' in line)
    assert install.strip().endswith('pip install --quiet --editable "congruent[notebooks]"')
    assert '.[notebooks]' in (ROOT / 'tests' / 'versions.py').read_text()


@pytest.mark.slow
def test_what_pip_would_replace_is_named(tmp_path):
    packages = [('a_part', 1, ''), ('a-part', 2, ''), ('fits', 1, 'a-part >= 1'), ('does-not', 1, 'a-part >= 2')]
    for name, version, needs in packages:
        folder = tmp_path / f'{name}-{version}'
        folder.mkdir()
        (folder / 'setup.cfg').write_text(
            f'[metadata]\nname = {name}\nversion = {version}\n[options]\npy_modules =\ninstall_requires = {needs}\n')
        shutil.copy(ROOT / 'pyproject.toml', folder)
        subprocess.run([sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
                        f'--wheel-dir={tmp_path / "wheels"}', folder], check=True)
    venv.create(tmp_path / 'venv', with_pip=True, symlinks=True)
    python = tmp_path / 'venv' / 'bin' / 'python'
    here = ['--no-index', f'--find-links={tmp_path / "wheels"}']
    subprocess.run([python, '-m', 'pip', 'install', '--quiet', *here, 'a-part==1'], check=True)
    assert versions.replaced(python, *here, 'fits') == {}
    assert versions.replaced(python, *here, 'does-not') == {'a-part': ('1', '2')}
