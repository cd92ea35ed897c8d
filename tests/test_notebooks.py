"""Every notebook, executed from top to bottom in a copy of the project."""

import nbclient
import nbformat
import pytest

from tests.conftest import ROOT, clean_environment, copy_project


def test_notebooks_are_kept_without_outputs():
    for path in (ROOT / 'notebooks').glob('*.ipynb'):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get('outputs') and not cell.get('execution_count'), path


@pytest.mark.slow
@pytest.mark.parametrize('path', sorted((ROOT / 'notebooks').glob('*.ipynb')), ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    copy = copy_project(tmp_path / 'project')
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name='python3',
                                     resources={'metadata': {'path': str(copy / 'notebooks')}})
    client.execute(env=clean_environment(PYTHONPATH=str(copy)))
    drawn = [output for cell in notebook.cells for output in cell.get('outputs', []) if 'data' in output]
    assert any('image/png' in output['data'] for output in drawn)
    assert "b'9'" in drawn[-1]['data']['text/plain']
