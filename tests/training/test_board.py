"""TensorBoard's files: what a resumed run keeps of them, how small they stay, and that texts are shown as they are."""

import html
import json
import re
import subprocess
import time
import warnings

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event

from errors import RunError
from tests.training.test_runlog import open_log
from training.board import LARGE, LETTERS, SHOWN, Board, grid, table

with warnings.catch_warnings():
    warnings.simplefilter('ignore', DeprecationWarning)       # of the html5lib that TensorBoard brings
    from tensorboard.plugin_util import markdown_to_safe_html


def steps(folder):
    """{tag: [step, ...]} as the files hold them, whatever TensorBoard's loader drops."""
    found = {}
    for file in sorted(folder.glob('*')):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = Event.FromString(record)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def write(board, *numbers, **values):
    for step in numbers:
        board.scalars('train', step, values or {'loss': 1. / step, 'accuracy': 1, 'bleu_signature': 'a text'})
    board.close()


def test_the_steps_that_are_run_again_are_there_once(tmp_path):
    board, folder = Board(tmp_path), tmp_path / 'train'
    write(board, 10, 20, 30)
    assert steps(folder) == {'loss': [10, 20, 30], 'accuracy': [10, 20, 30]}
    for _ in range(3):       # the files do not become more
        board.keep('train', lambda event: event.step <= 20)
        write(board, 30, 40)
        assert steps(folder) == {'loss': [10, 20, 30, 40], 'accuracy': [10, 20, 30, 40]}
        assert len(list(folder.iterdir())) == 2
    loaded = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in loaded.Tensors('loss')] == [10, 20, 30, 40]
    assert [float(tf.make_ndarray(event.tensor_proto)) for event in loaded.Tensors('loss')] == pytest.approx(
        [1 / 10, 1 / 20, 1 / 30, 1 / 40])


def test_a_tensorboard_that_is_running_drops_what_is_run_again(tmp_path):
    board = Board(tmp_path)
    board.keep('train', lambda event: True)
    write(board, 10, 20, 30)
    running = EventAccumulator(str(tmp_path / 'train')).Reload()
    assert [event.step for event in running.Tensors('loss')] == [10, 20, 30]
    time.sleep(1.1)      # files are read in the order of their names, which have the second
    board.keep('train', lambda event: event.step <= 10)
    assert [event.step for event in running.Reload().Tensors('loss')] == [10]
    write(board, 15, 25)
    assert [event.step for event in running.Reload().Tensors('loss')] == [10, 15, 25]


def test_events_keep_their_time(tmp_path):
    board = Board(tmp_path)
    write(board, 10)
    before = EventAccumulator(str(tmp_path / 'train')).Reload().Tensors('loss')
    board.keep('train', lambda event: True)
    assert EventAccumulator(str(tmp_path / 'train')).Reload().Tensors('loss') == before


@pytest.mark.parametrize('tail', [b'\0' * 100, b'\x18', b'no event'])
def test_a_file_that_was_cut_loses_its_end_alone(tmp_path, tail):
    board = Board(tmp_path)
    write(board, 10, 20)
    file, = (tmp_path / 'train').iterdir()
    file.write_bytes(file.read_bytes() + tail)
    board.keep('train', lambda event: True)
    write(board, 30)
    assert steps(tmp_path / 'train')['loss'] == [10, 20, 30]


def test_a_start_that_was_killed_between_two_files_leaves_no_event_twice(tmp_path):
    board = Board(tmp_path)
    write(board, 10, 20)
    file, = (tmp_path / 'train').iterdir()
    old = file.read_bytes()
    board.keep('train', lambda event: True)
    file.write_bytes(old)
    assert steps(tmp_path / 'train')['loss'] == [10, 20, 10, 20]
    board.keep('train', lambda event: True)
    assert steps(tmp_path / 'train')['loss'] == [10, 20]


def test_a_log_goes_back_in_both_kinds_of_records_alike(tmp_path):
    """An evaluation that is due again is dropped; the training record of its step is not."""
    log = open_log(tmp_path)
    for step in (10, 20, 30):
        log._write('train', {'step': step, 'loss': 1.}, '')
        log.evaluation(step, 'validation', {'loss': 2., 'count': 3})
    log.close()
    for due, evaluated in ((False, [10, 20]), (True, [10])):
        open_log(tmp_path, 20, evaluation_due=due).close()
        records = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
        assert [r['step'] for r in records if 'split' in r] == evaluated
        assert steps(tmp_path / 'tensorboard' / 'train') == {'loss': [10, 20]}
        assert steps(tmp_path / 'tensorboard' / 'validation') == {'loss': evaluated}


def test_a_worker_that_is_quiet_writes_nothing(tmp_path):
    log = open_log(tmp_path, quiet=True)
    log.evaluation(10, 'validation', {'loss': 2., 'count': 3})
    log.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('text', ['a | b', '<b>bold</b> & &amp;', '**%s** _x_ `y`', '# 1', '[a](http://b)', '1. x',
                                  '"Löschen"\t零\n\\', '~~~', '--- | ---', 'javascript:alert(1)', 'b\udcffd'])
def test_a_table_shows_texts_as_they_are(text):
    shown = markdown_to_safe_html(table([['source', 'answer'], [text, text], ['next', 'row']]))
    cells = [html.unescape(cell) for cell in re.findall(r'<td>(.*?)</td>', shown)]
    expected = ' '.join(text.replace('\udcff', '\ufffd').split())
    assert cells == [expected, expected, 'next', 'row'] and re.findall(r'<th>(.*?)</th>', shown) == ['source', 'answer']


@pytest.mark.parametrize('shape', [(1, 8, 8, 1), (3, 28, 28, 1), (16, 64, 64, 3), (40, 300, 200, 3), (5, 5, 9, 4)])
def test_a_grid_is_one_picture_of_bounded_size(shape):
    images = np.random.RandomState(0).rand(*shape).astype(np.float32)
    picture = grid(images)
    count, columns = min(SHOWN, shape[0]), min(4, shape[0])
    assert picture.dtype == np.uint8 and picture.shape[0] == 1 and picture.shape[3] == shape[3]
    assert max(picture.shape[1:3]) <= 4 * (LARGE + 2) and max(picture.shape[1:3]) >= 32 * columns
    height, width = picture.shape[1] // -(-count // columns) - 2, picture.shape[2] // columns - 2
    assert abs(height / width - shape[1] / shape[2]) < 0.05
    if max(shape[1:3]) <= LARGE:      # each is where it belongs, and is itself
        factor = height // shape[1]
        for i in range(count):
            top, left = i // columns * (height + 2), i % columns * (width + 2)
            part = picture[0, top:top + height:factor, left:left + width:factor]
            assert np.abs(part / 255. - images[i]).max() < 0.002


def test_what_is_shown_stays_small(tmp_path):
    board, noise = Board(tmp_path), np.random.RandomState(0).rand(1000, 300, 300, 3)
    board.show('test', 7, {'pictures': noise, 'texts': [['a', 'b'], *[['x' * 10_000, 'y\n']] * 1000], 'note': '**n**'})
    board.close()
    file, = (tmp_path / 'test').iterdir()
    assert file.stat().st_size < 4 * 2 ** 20 and LETTERS < 1000
    loaded = EventAccumulator(str(tmp_path / 'test')).Reload()
    assert {tag: len(loaded.Tensors(tag)) for tag in loaded.Tags()['tensors']} == {'pictures': 1, 'texts': 1, 'note': 1}
    text = tf.make_ndarray(loaded.Tensors('texts')[0].tensor_proto).item().decode()
    assert len(text.splitlines()) == 2 + SHOWN


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path):
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('this machine does not let a test mount a tmpfs')
    try:
        board = Board(tmp_path)
        with pytest.raises(RunError, match="TensorBoard's files cannot be written to .*train: .*space") as error:
            for step in range(1000):
                board.scalars('train', step, {f'a{i}': 1. for i in range(20)})
        assert '\n' not in str(error.value)
    finally:
        subprocess.run(['umount', '-l', str(tmp_path)], check=True)
