"""Text classification on real data sets, by the recipes' own commands: CONGRUENT_DATA must name their folder."""

import json

import pytest

from benchmarks.collect import command
from tests.conftest import REAL_DATA


@pytest.mark.parametrize('recipe, dataset, count, least', [
    pytest.param('lstm_sst2', 'sst2', 1821, 0.80, marks=pytest.mark.results),
    pytest.param('lstm_trec', 'trec', 500, 0.84, marks=pytest.mark.slow)])
def test_a_model_of_texts_learns(run_python, tmp_path, recipe, dataset, count, least):
    if not (REAL_DATA / dataset).is_dir():
        pytest.skip(f'CONGRUENT_DATA must name a folder that holds {dataset}')
    arguments = command(recipe).replace('=FOLDER', f'={REAL_DATA}').split()[1:]
    run_python(*arguments, f'--workdir={tmp_path / "run"}')
    results = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert results['eval']['accuracy'] >= least and results['eval']['count'] == count
    assert results['export_max_abs_diff'] < 1e-5
    text = 'a film that is a joy from its first to its last minute'
    ask = ('predict.py', f'--workdir={tmp_path / "run"}', f'--data_dir={REAL_DATA}', '--json', f'--text={text}')
    answers = [json.loads(run_python(*ask, *more).stdout.splitlines()[0])
               for more in ([], ['--text=dull', '--text=' + 'very ' * 300 + 'good'])]
    assert answers[0]['label'] == answers[1]['label']
    # An answer does not depend on its batch.
    assert max(abs(a - b) for a, b in zip(*(answer['probabilities'] for answer in answers))) < 1e-5
