"""Weights that others published, in real runs: --weights and export.py --format=huggingface."""

import json

import numpy as np
import pytest
import safetensors.numpy

from experiment import published
from experiment.trained import load
from models.resnet import resnet
from models.resnet_names import LAYOUTS
from training.checkpoint import Checkpoints

SMALL = ['train.py', '--model=resnet', '--dataset=digits', '--image_size=8', '--size=18', '--width=4',
         '--batch_size=16', '--steps=2', '--noexport']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder of the weights of a ResNet-18 of 7 classes under torchvision's names."""
    folder, rng = tmp_path_factory.mktemp('published'), np.random.default_rng(0)
    arrays = {v.path: rng.uniform(0.5, 1.5, v.shape).astype(np.float32)
              for v in resnet((8, 8, 1), 7, size='18', width=4).weights}
    theirs = LAYOUTS['torchvision and timm'].to_theirs(arrays)
    content = safetensors.numpy.save({name: np.asarray(array, order='C') for name, array in theirs.items()})
    (folder / published.FILE).write_bytes(content)
    return folder, arrays


@pytest.mark.slow
def test_a_run_starts_from_published_weights_and_goes_back_to_them(run_python, folder, tmp_path):
    folder, arrays = folder
    done = run_python(*SMALL, f'--weights={folder}', '--learning_rate=1e-30', f'--workdir={tmp_path / "run"}')
    line = next(line for line in done.stdout.splitlines() if line.startswith('weights'))
    assert 'named as by torchvision and timm, hash ' in line and line.endswith(
        'logits/bias, logits/kernel of the seed, since they are not there in this shape')
    trained, metadata = Checkpoints(tmp_path / 'run' / 'checkpoints').newest()
    assert metadata['weights']
    for path, array in arrays.items():      # at this rate only the moving statistics have changed
        if 'logits' not in path and 'moving' not in path:
            np.testing.assert_array_equal(trained[f'model/{path}'], array, err_msg=path)
    run_python('export.py', f'--workdir={tmp_path / "run"}', '--format=huggingface', f'--output={tmp_path / "out"}')
    *_, model, _ = load(tmp_path / 'run')
    theirs = safetensors.numpy.load((tmp_path / 'out' / published.FILE).read_bytes())
    for name, array in LAYOUTS['Hugging Face'].to_theirs({v.path: np.array(v) for v in model.weights}).items():
        np.testing.assert_array_equal(theirs[name], array, err_msg=name)
    assert json.loads((tmp_path / 'out' / 'config.json').read_text())['id2label'] == {str(i): str(i) for i in range(10)}
    again = run_python(*SMALL, f'--weights={tmp_path / "out"}', f'--workdir={tmp_path / "again"}')
    line = next(line for line in again.stdout.splitlines() if line.startswith('weights'))
    assert 'named as by Hugging Face' in line and 'of the seed' not in line


@pytest.mark.slow
def test_weights_that_do_not_fit_are_one_line_and_leave_no_folder(run_python, folder, tmp_path):
    done = run_python(*SMALL, '--size=34', f'--weights={folder[0]}', f'--workdir={tmp_path / "run"}', check=False)
    assert done.returncode == 2 and not (tmp_path / 'run').exists()
    assert done.stderr.startswith('error: `weights` must fit the model: layer1.2.bn1.bias, layer1.2.bn1.running_mean, '
                                  'layer1.2.bn1.running_var and 77 more are not there. Received: weights=')
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_bert_goes_from_task_to_task_by_either_folder(run_python, tmp_path):
    """Sizes and words come with the weights: from the folder of a run, and from one in Hugging Face's layout."""
    rng, folder = np.random.default_rng(0), tmp_path / 'moods'
    folder.mkdir()
    for split in ('train', 'validation', 'test'):
        lines = (f'{mood}\t{" ".join(rng.choice(["it", "was", "so", "very"], 4))} {mood}'
                 for mood in rng.choice(['dull', 'good'], 40))
        (folder / f'{split}.tsv').write_text('\n'.join(lines) + '\n')
    few = ['--batch_size=8', '--steps=3', '--warmup_steps=1', '--noexport', '--max_length=12',
           f'--dataset=files/{folder}']
    run_python('train.py', '--recipe=bert_mlm_pydoc', *few, '--vocabulary_size=40', '--size=mini', '--heads=2',
               '--positions=20', '--activation=gelu_tanh', f'--workdir={tmp_path / "hidden"}')
    run_python('export.py', f'--workdir={tmp_path / "hidden"}', '--format=huggingface',
               f'--output={tmp_path / "there"}')
    words, there = (tmp_path / name / 'vocab.txt' for name in ('hidden/tokenizer', 'there'))
    assert there.read_bytes() == words.read_bytes()
    start, metadata = Checkpoints(tmp_path / 'hidden' / 'checkpoints').newest()
    for name, weights in (('run', 'hidden'), ('folder', 'there')):
        tuned = [*few, f'--weights={tmp_path / weights}', f'--workdir={tmp_path / name}']
        done = run_python('train.py', '--recipe=bert_sst2', *tuned, '--learning_rate=1e-30', '--weight_decay=0')
        line = next(line for line in done.stdout.splitlines() if line.startswith('weights'))
        assert line.endswith('head_pooler/bias, head_pooler/kernel, logits/bias and 1 more of the seed, since they are '
                             'not there in this shape')
        recipe, _, _, model, _ = load(tmp_path / name)
        assert recipe.model.positions == 20 and recipe.model.activation == 'gelu_tanh'
        for variable in model.weights:
            if not variable.path.startswith(('head_', 'logits')):
                np.testing.assert_array_equal(variable, start[f'model/{variable.path}'], err_msg=variable.path)
        again = run_python('train.py', '--recipe=bert_sst2', *tuned, '--learning_rate=1e-30', '--weight_decay=0')
        assert 'nothing to do' in again.stdout
        wrong = run_python('train.py', '--recipe=bert_sst2', *tuned[:-1], '--num_layers=3',
                           f'--workdir={tmp_path / "no"}', check=False)
        assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1 and not (tmp_path / 'no').exists()


@pytest.mark.slow
def test_an_answer_is_looked_for_in_a_file(run_python, tmp_path):
    paragraphs = [{'context': f'the {word} is here', 'qas': [{'id': word, 'question': 'what is here?', 'answers': [
        {'text': word, 'answer_start': 4}]}]} for word in ('cat', 'dog', 'hat', 'bat', 'log', 'cog', 'hut', 'but')]
    for split in ('train', 'validation', 'test'):
        (tmp_path / f'{split}.json').write_text(json.dumps({'data': [{'paragraphs': paragraphs}]}))
    run_python('train.py', '--recipe=bert_squad', f'--dataset=files/{tmp_path}', '--batch_size=8', '--steps=60',
               '--warmup_steps=5', '--max_length=24', '--question_length=8', '--stride=5', '--learning_rate=1e-3',
               '--num_layers=1', '--d_model=32', '--d_ff=32', '--heads=2', f'--workdir={tmp_path / "run"}')
    assert json.loads((tmp_path / 'run' / 'results.json').read_text())['eval']['count'] == 8
    (tmp_path / 'text.txt').write_text('the dog is here')
    done = run_python('predict.py', f'--workdir={tmp_path / "run"}', '--question=what is here?', '--json',
                      f'--context={tmp_path / "text.txt"}')
    answer = json.loads(done.stdout)
    assert answer['question'] == 'what is here?' and 'the dog is here'[answer['start']:answer['end']] == answer['text']
    assert answer['text'] == 'dog'
    absent = f'--context={tmp_path / "absent"}'
    for flags, message in (([absent, '--question=a'], '`context` must be a file that can be'),
                           (['--question=a'], '`--context` is required'), (['--text=a'], '`text`')):
        wrong = run_python('predict.py', f'--workdir={tmp_path / "run"}', *flags, check=False)
        assert wrong.returncode == 2 and message in wrong.stderr and len(wrong.stderr.splitlines()) == 1
