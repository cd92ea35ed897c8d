"""The front doors as a user meets them: processes, files, exit codes. E2 and E4 for one small run."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

import recipes
from tests.conftest import ROOT
from tests.training.test_board import steps
from training.checkpoint import Checkpoints

STEPS = 120
RUN = ['train.py', '--model=mlp', f'--steps={STEPS}', '--augment=shift', '--ema=0.9', '--eval_every=40',
       '--checkpoint_every=10', '--log_every=25', '--steps_per_call=5']
FIELDS = {'recipe', 'model', 'dataset', 'strategy', 'replicas', 'workers', 'global_batch_size', 'steps',
          'examples_seen', 'eval', 'weights_sha256', 'train_seconds', 'compile_seconds', 'examples_per_second',
          'flops_per_step', 'fingerprint', 'deterministic', 'tensor_float_32', 'export_dir', 'export_max_abs_diff',
          'versions'}


@pytest.fixture(scope='module')
def finished(run_python, tmp_path_factory):
    """(workdir, what it printed) of a run that nobody interrupted."""
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    return workdir, run_python(*RUN, f'--workdir={workdir}')


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    """A real digit, of another size than the model's, and in colour."""
    path = tmp_path_factory.mktemp('images') / 'digit.png'
    grey = Image.fromarray(np.uint8(load_digits().images[1500] * 15)).resize((37, 45))
    grey.convert('RGB').save(path)
    return path


def results(workdir):
    return json.loads((workdir / 'results.json').read_text())


def test_results_have_every_field(finished):
    workdir, _ = finished
    values = results(workdir)
    assert FIELDS <= set(values)
    assert values['eval'].keys() == {'loss', 'accuracy', 'count'} and values['eval']['count'] == 360
    assert values['eval']['accuracy'] > 0.5
    assert (values['replicas'], values['workers'], values['steps']) == (1, 1, STEPS)
    assert values['examples_seen'] == STEPS * values['global_batch_size']
    # Dense layers: forward 2 * B * in * out, and twice that backward, but for the first layer's inputs.
    forward = 2 * 128 * np.array([784 * 256, 256 * 128, 128 * 10])
    assert values['flops_per_step'] == pytest.approx(3 * forward.sum() - forward[0])
    assert values['export_max_abs_diff'] < 1e-5


def test_what_a_person_sees(finished):
    _, done = finished
    for words in ('recipe    mlp_digits', 'cpu, 1 replica: auto found no GPU', '235,146 parameters', 'GFLOP',
                  'step     25/120  train', 'step     40/120  validation', 'Test accuracy: 0.', 'Test loss: ',
                  'tensorboard --logdir'):
        assert words in done.stdout
    assert done.stderr == ''                         # no bar in a log, no noise of TensorFlow


def test_metrics_and_tensorboard(finished):
    workdir, _ = finished
    records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    train = [r for r in records if 'split' not in r]
    assert [r['step'] for r in train] == [25, 50, 75, 100, 120]
    assert {'step', 'loss', 'accuracy', 'learning_rate', 'grad_norm', 'examples_per_second', 'data_wait_fraction',
            'seconds'} <= set(train[0])
    assert [r['step'] for r in records if r.get('split') == 'validation'] == [40, 80, 120]
    assert train[-1]['loss'] < train[0]['loss']
    shown = curves(workdir)
    assert shown['train']['accuracy'] == [25, 50, 75, 100, 120] and shown['validation']['accuracy'] == [40, 80, 120]
    assert shown['test']['accuracy'] == [120] and set(shown) == {'train', 'validation', 'test'}
    assert shown['train']['inputs'] == shown['train']['recipe'] == [0]
    assert all(tag.startswith('mistakes/') or tag.startswith('_hparams_/') or tag in records[-1]
               for tag in shown['test'])


def curves(workdir):
    """{split: {tag: [step, ...]}} in TensorBoard's files."""
    return {folder.name: steps(folder) for folder in (workdir / 'tensorboard').iterdir()}


def test_tensorboard_has_the_recipe_as_text_and_as_hyperparameters(finished):
    workdir, _ = finished
    recipe = json.loads((workdir / 'recipe.json').read_text())
    train, test = (EventAccumulator(str(workdir / 'tensorboard' / split)).Reload() for split in ('train', 'test'))
    assert json.loads(tf.make_ndarray(train.Tensors('recipe')[0].tensor_proto).item()) == recipe
    found = test.PluginTagToContent('hparams')
    start, end = (parse(found[tag]) for parse, tag in (
        (metadata.parse_session_start_info_plugin_data, metadata.SESSION_START_INFO_TAG),
        (metadata.parse_session_end_info_plugin_data, metadata.SESSION_END_INFO_TAG)))
    values = {name: getattr(value, value.WhichOneof('kind')) for name, value in start.hparams.items()}
    fields = {name: value for section in recipe.values() for name, value in section.items() if name != 'kind'}
    assert values == {'model': 'mlp', 'task': 'classification', **fields} and end.status == 1
    for name, value in results(workdir)['eval'].items():      # the metrics beside them
        if name != 'count':
            assert tf.make_ndarray(test.Tensors(name)[0].tensor_proto) == np.float32(value)


def test_the_same_command_again_does_nothing(finished, run_python):
    workdir, _ = finished
    before = {f: f.stat().st_mtime_ns for f in workdir.rglob('*')}
    done = run_python(*RUN, f'--workdir={workdir}')
    assert f'finished at step {STEPS}: nothing to do' in done.stdout
    assert {f: f.stat().st_mtime_ns for f in workdir.rglob('*')} == before


def interrupted(workdir, number, after_step, command=RUN):
    """Starts the run, sends the signal when the checkpoint of `after_step` is there. Returns exit code and output."""
    process = subprocess.Popen([sys.executable, *command, f'--workdir={workdir}'], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.time() + 120
    while not list((workdir / 'checkpoints').glob(f'step-{after_step:08d}-*')):
        assert process.poll() is None and time.time() < deadline, process.communicate()[0]
        time.sleep(0.002)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def test_killed_and_resumed_equals_never_interrupted(finished, run_python, tmp_path):
    assert interrupted(tmp_path / 'run', signal.SIGKILL, 20)[0] == -signal.SIGKILL
    resumed_as_if_never_interrupted(finished, run_python, tmp_path / 'run')


@pytest.mark.slow
def test_stopped_and_resumed_equals_never_interrupted(finished, run_python, tmp_path):
    code, output = interrupted(tmp_path / 'run', signal.SIGTERM, 50)
    assert code == 75 and 'stopped by SIGTERM; saved at step' in output
    resumed_as_if_never_interrupted(finished, run_python, tmp_path / 'run')


def resumed_as_if_never_interrupted(finished, run_python, other):
    workdir, _ = finished
    done = run_python(*RUN, f'--workdir={other}')
    assert 'resuming at step' in done.stdout
    for key in ('weights_sha256', 'eval', 'best'):
        assert results(other)[key] == results(workdir)[key]
    assert records(other) == records(workdir)        # what was run twice is recorded once
    assert curves(other) == curves(workdir)


def records(workdir):
    """metrics.jsonl without what a clock has measured."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ('seconds', 'examples_per_second', 'data_wait_fraction')}
            for line in lines]


@pytest.mark.slow
def test_steps_that_a_killed_run_had_shown_are_shown_once(run_python, tmp_path):
    """The newest checkpoint is older than what TensorBoard had been told."""
    command = ['train.py', '--model=mlp', '--steps=600', '--log_every=2', '--checkpoint_every=100', '--noexport',
               '--steps_per_call=2', f'--workdir={tmp_path}']
    while (last := _killed_between_checkpoints(command, tmp_path)) is None:
        pass       # the kill came within two steps after a checkpoint
    done = run_python(*command)
    resumed = int(re.search('resuming at step ([0-9,]+)', done.stdout)[1])
    assert resumed < last
    assert curves(tmp_path)['train']['loss'] == list(range(2, 601, 2)) == curves(tmp_path)['train']['seconds']


def _killed_between_checkpoints(command, workdir):
    """Kills a run. Returns the last step in TensorBoard's files, or None if there is a checkpoint of it."""
    before = newest(workdir)
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    while not newest(workdir) > before:
        assert process.poll() is None
        time.sleep(0.002)
    while shown(workdir) <= newest(workdir):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    last = shown(workdir)
    return last if last > newest(workdir) else None


def newest(workdir):
    return max((int(file.name[5:13]) for file in (workdir / 'checkpoints').glob('step-*')), default=0)


def shown(workdir):
    return max(steps(workdir / 'tensorboard' / 'train').get('loss', [0]))


@pytest.mark.parametrize('flags', [
    pytest.param(['--model=cnn', '--steps=60', '--augment=flip_shift'], marks=pytest.mark.slow),
    pytest.param(['--model=lstm', '--steps=60', '--accumulate=2'], marks=pytest.mark.slow),
    # It evaluates 10,000 sentences: minutes. The slow tier kills a smaller one in tests/test_translation.py.
    pytest.param(['--model=transformer', '--steps=24', '--warmup_steps=5', '--ema=0.9'], marks=pytest.mark.results)],
    ids=lambda f: f[0][8:])
def test_kill_minus_nine_changes_nothing_for_any_model(run_python, tmp_path, flags):
    command = ['train.py', *flags, '--checkpoint_every=5', '--steps_per_call=2', '--noexport']
    run_python(*command, f'--workdir={tmp_path / "whole"}')
    assert interrupted(tmp_path / 'killed', signal.SIGKILL, 10, command)[0] == -signal.SIGKILL
    code, output = interrupted(tmp_path / 'killed', signal.SIGINT, 20, command)
    assert code == 130 and 'stopped by SIGINT; saved at step' in output
    run_python(*command, f'--workdir={tmp_path / "killed"}')
    whole, killed = results(tmp_path / 'whole'), results(tmp_path / 'killed')
    for key in ('weights_sha256', 'eval', 'best'):
        assert killed[key] == whole[key]


@pytest.mark.slow
def test_two_replicas_end_where_one_does(finished, run_python, tmp_path):
    workdir, _ = finished
    run_python(*RUN, '--noexport', '--virtual_devices=2', f'--workdir={tmp_path / "run"}')
    one, two = results(workdir), results(tmp_path / 'run')
    assert two['replicas'] == 2 and two['flops_per_step'] == one['flops_per_step']
    assert two['eval']['accuracy'] == one['eval']['accuracy'] and two['eval']['count'] == 360
    weights = [Checkpoints(folder / 'checkpoints').newest()[0] for folder in (workdir, tmp_path / 'run')]
    for name, value in weights[0].items():
        # Adam divides by the root of squared gradients; sums in another order show where those are tiny.
        np.testing.assert_allclose(weights[1][name], value, rtol=1e-3, atol=1e-4, err_msg=name)


# An editable install makes the project importable from anywhere: what counts is that nothing of it was imported.
ALONE = '''
ours = {'experiment', 'data', 'models', 'tasks', 'training', 'strategies', 'settings'} & set(sys.modules)
if ours:
    sys.exit(f'the project was imported: {ours}')
'''
SERVE = '''
import json, sys, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
data = tf.io.read_file(sys.argv[2])
image = tf.io.decode_image(data, expand_animations=False)[None]
answers = {'serving_default': dict(images=image), 'encoded': dict(image_bytes=data[None])}
for name, inputs in answers.items():
    out = model.signatures[name](**inputs)
    print(json.dumps({'label': out['label'].numpy()[0].decode(),
                      'probabilities': out['probabilities'].numpy()[0].tolist()}))
''' + ALONE


@pytest.mark.slow
def test_the_saved_model_serves_without_the_project(finished, image, run_python, tmp_path):
    workdir, _ = finished
    done = run_python('-I', '-c', SERVE, workdir / 'export' / '1', image, cwd=tmp_path)
    served = [json.loads(line) for line in done.stdout.splitlines()]
    predicted = json.loads(run_python('predict.py', f'--workdir={workdir}', f'--image={image}', '--json').stdout)
    assert len(served) == 2 and len(predicted['probabilities']) == 10
    for answer in served:
        assert answer['label'] == predicted['label']
        np.testing.assert_allclose(answer['probabilities'], predicted['probabilities'], atol=1e-6)


ASK = '''
import json, sys, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
for path in sys.argv[2:]:
    print(json.dumps(model.signatures['encoded'](tf.io.read_file(path)[None])['probabilities'].numpy()[0].tolist()))
'''


@pytest.mark.slow
def test_pictures_are_read_alike_by_predict_and_the_saved_model(finished, image, run_python, tmp_path):
    """WebP, animated or not, and a photograph that lies on its side."""
    workdir, _ = finished
    with Image.open(image) as picture:
        picture.save(tmp_path / 'still.webp', lossless=True)
        picture.save(tmp_path / 'animated.webp', lossless=True, save_all=True, append_images=[picture.rotate(90)])
        exif = Image.Exif()
        exif[0x112] = 6                          # to be turned clockwise
        lying = picture.transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / 'lying.jpg', exif=exif, quality=100, subsampling=0)
    lying.save(tmp_path / 'untold.jpg', quality=100, subsampling=0)
    paths = [image, *(tmp_path / name for name in ('still.webp', 'animated.webp', 'lying.jpg', 'untold.jpg'))]
    done = run_python('predict.py', f'--workdir={workdir}', *(f'--image={path}' for path in paths), '--json')
    predicted = [json.loads(line)['probabilities'] for line in done.stdout.splitlines()]
    asked = run_python('-c', ASK, workdir / 'export' / '1', *paths)
    np.testing.assert_allclose([json.loads(line) for line in asked.stdout.splitlines()], predicted, atol=1e-6)
    np.testing.assert_allclose(predicted[1:3], predicted[:1] * 2, atol=1e-6)
    np.testing.assert_allclose(predicted[3], predicted[0], atol=.1)        # a JPEG's pixels are other ones
    assert np.abs(np.subtract(predicted[4], predicted[0])).max() > .3


def test_predict_refuses_what_is_no_regular_file(finished, run_python, tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    for path in (tmp_path / 'pipe.png', '/dev/zero', tmp_path):
        done = run_python('predict.py', f'--workdir={finished[0]}', f'--image={path}', check=False)
        assert (done.returncode, done.stdout) == (2, '')
        assert done.stderr == f"error: `image` must be a regular file. Received: image='{path}'\n"


@pytest.mark.slow
def test_evaluation_depends_on_neither_batch_nor_replicas(finished, run_python):
    workdir, _ = finished
    done = run_python('evaluate.py', f'--workdir={workdir}', '--batch_size=76', '--virtual_devices=4')
    values = json.loads(done.stdout)
    assert values['count'] == 360 and values['step'] == STEPS
    assert values['accuracy'] == results(workdir)['eval']['accuracy']
    assert values['loss'] == pytest.approx(results(workdir)['eval']['loss'], rel=1e-5)


@pytest.mark.slow
def test_any_checkpoint_can_be_exported(finished, run_python, tmp_path):
    workdir, _ = finished
    best = results(workdir)['best']['step']
    done = run_python('export.py', f'--workdir={workdir}', '--checkpoint=best', f'--output={tmp_path / "served" / "1"}')
    assert f'step {best} of' in done.stdout
    assert (tmp_path / 'served' / '1' / 'saved_model.pb').exists()


@pytest.mark.slow
@pytest.mark.parametrize('flags, files', [(['--format=keras'], ['model.keras']),
                                          (['--format=litert', '--quantize=float16'], ['model.tflite']),
                                          (['--format=openvino'], ['pixels.bin', 'pixels.xml'])])
def test_a_run_is_exported_for_another_runtime(finished, run_python, tmp_path, flags, files):
    """Nothing is on stderr, neither notes of a converter nor a bar, which is for terminals."""
    workdir, _ = finished
    done = run_python('export.py', f'--workdir={workdir}', f'--output={tmp_path / "out"}', *flags)
    accuracy = results(workdir)['eval']['accuracy']
    assert f'accuracy {accuracy:.4f} (the model {accuracy:.4f})' in done.stdout and done.stderr == ''
    assert {'description.json', *files} <= {path.name for path in (tmp_path / 'out').iterdir()}


def test_a_format_that_is_not_installed_is_one_line(run_python, tmp_path):
    (tmp_path / 'recipe.json').write_text(recipes.load('mlp_diabetes')[1].to_json())
    missing = ('import runpy, sys; sys.modules["tf2onnx"] = None; sys.argv[0] = "export.py"; '
               'runpy.run_path("export.py", run_name="__main__")')
    done = run_python('-c', missing, f'--workdir={tmp_path}', '--format=onnx', f'--output={tmp_path / "out"}',
                      check=False)
    assert (done.returncode, done.stderr) == (2, 'error: `format` onnx needs a package that is not installed, tf2onnx: '
                                                 'pip install -e ".[onnx]". Received: format=onnx\n')


@pytest.mark.parametrize('arguments, code, message', [
    (['train.py'], 2, '`--model` or `--recipe` must say what to train'),
    (['train.py', '--modell=cnn'], 2, "Unknown command line flag 'modell'. Did you mean: model"),
    (['train.py', '--model=cnn', '--batch_size=many'], 2, 'flag --batch_size=many'),
    (['train.py', '--model=cnn', '--steps=-1'], 2, '`steps` must be at least 0'),
    (['train.py', '--model=cnn', 'digits'], 2, '`train.py` takes flags only. Received: digits'),
    (['evaluate.py'], 2, '`--workdir` is required'),
    (['evaluate.py', '--workdir=nowhere', '--split=tests'], 2, '`split` must be one of train, validation, test'),
    (['predict.py', '--workdir=nowhere'], 2, '`workdir` must hold a run, made by train.py'),
    (['export.py', '--workdir=nowhere'], 2, '`--output` is required'),
])
def test_a_wrong_flag_is_one_line(run_python, arguments, code, message, tmp_path):
    done = run_python(*arguments, check=False, env={'PYTHONPATH': str(ROOT)})
    assert done.returncode == code
    assert done.stderr.startswith('error: ') and len(done.stderr.splitlines()) == 1
    assert message in done.stderr and done.stdout == ''


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(MiB) -> a folder that holds so much; a second call makes it as large as that says."""
    disk = tmp_path / 'disk'
    disk.mkdir()

    def mount(size):
        options = f'size={size}m' + (',remount' if disk.is_mount() else '')
        if subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(disk)], capture_output=True).returncode:
            pytest.skip('this machine does not let a test mount a tmpfs')
        return disk
    yield mount
    if disk.is_mount():
        subprocess.run(['umount', str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(run_python, small_disk):
    workdir = small_disk(8) / 'run'      # a checkpoint is 3.8 MB: two fit, the third does not
    done = run_python(*RUN, f'--workdir={workdir}', check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and 'No space left on device; that of step' in done.stderr
    again = run_python(*RUN, f'--workdir={workdir}', check=False)
    assert 'resuming at step' in again.stdout


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_export_is_one_line_and_the_run_goes_on(run_python, small_disk):
    workdir = small_disk(6) / 'run'      # the newest and the best checkpoint are 2.8 MB each, the export is 1 MB
    command = ['train.py', '--model=mlp', '--steps=3', f'--workdir={workdir}']
    done = run_python(*command, check=False)
    assert done.returncode == 1 and not (workdir / 'results.json').exists()
    assert done.stderr == (f'error: the SavedModel could not be written to {workdir}/export/1: '
                           'No space left on device\n')
    small_disk(64)
    again = run_python(*command)
    assert 'resuming at step 3 of 3' in again.stdout and results(workdir)['export_max_abs_diff'] < 1e-5
