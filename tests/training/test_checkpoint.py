import hashlib
import json
import pickle

import numpy as np
import pytest
import safetensors.numpy

from errors import RunError
from training.checkpoint import KEEP, Checkpoints, step_of
from training.files import write_atomically


@pytest.fixture
def checkpoints(tmp_path):
    lines = []
    made = Checkpoints(tmp_path / 'checkpoints', report=lines.append)
    made.lines = lines
    yield made
    made.wait()


def arrays(step):
    return {'model/w': np.full([3, 2], step, np.float32), 'optimizer/iterations': np.array(step, np.int64)}


def save(checkpoints, *steps, **options):
    for step in steps:
        checkpoints.save(step, arrays(step), {'data': 'x'}, **options)
    checkpoints.wait()


def test_round_trip_keeps_names_types_shapes_and_metadata(checkpoints):
    save(checkpoints, 7)
    restored, metadata = checkpoints.newest()
    assert metadata == {'data': 'x', 'step': 7}
    for name, value in arrays(7).items():
        assert (restored[name].dtype, restored[name].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(restored[name], value)


def test_the_newest_are_kept_and_the_best_stays(checkpoints):
    save(checkpoints, 1, best=True)
    save(checkpoints, *range(2, 8))
    assert checkpoints.steps() == list(range(8 - KEEP, 8))
    assert checkpoints.best()[1]['step'] == 1
    save(checkpoints, 8, best=True)
    assert checkpoints.best()[1]['step'] == 8
    assert len(list(checkpoints.folder.glob('best-*'))) == 1


def test_a_kill_between_the_best_and_the_newest_file_forgets_neither(checkpoints, monkeypatch):
    """The best is written first: the run resumes before it, and reaches it again."""
    save(checkpoints, 1, best=True)
    written = []

    def killed_after_one(path, data):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write_atomically(path, data)
    monkeypatch.setattr('training.checkpoint.write_atomically', killed_after_one)
    with pytest.raises(KeyboardInterrupt):
        save(checkpoints, 2, best=True)
    assert checkpoints.newest()[1]['step'] == 1 and checkpoints.best()[1]['step'] == 2
    assert {step_of(f) for f in checkpoints.folder.glob('best-*')} == {1, 2}


def test_what_a_killed_process_left_half_written_goes(checkpoints):
    save(checkpoints, 1)
    left = checkpoints.folder / '.step-00000002-abc.safetensors.99.tmp'
    left.write_bytes(b'half')
    save(checkpoints, 3)
    assert not left.exists() and checkpoints.steps() == [1, 3]


def newest_file(checkpoints):
    return max(checkpoints.folder.glob('step-*'), key=step_of)


def truncate(data):
    return data[:len(data) // 2]


def flip_a_bit(data):
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


@pytest.mark.parametrize('damage', [truncate, flip_a_bit, lambda data: b''])
def test_a_broken_newest_is_named_and_the_one_before_is_restored(checkpoints, damage):
    save(checkpoints, 1, 2)
    file = newest_file(checkpoints)
    file.write_bytes(damage(file.read_bytes()))
    restored, metadata = checkpoints.newest()
    assert metadata['step'] == 1
    np.testing.assert_array_equal(restored['model/w'], arrays(1)['model/w'])
    assert checkpoints.lines == [f'checkpoint {file.name} is broken (its bytes do not match its name): skipped']


def header(values):
    data = json.dumps(values).encode()
    return len(data).to_bytes(8, 'little') + data


def with_metadata(**metadata):
    return safetensors.numpy.save(arrays(9), metadata=metadata)


A_RUN = {'__metadata__': {'run': '{"step": 9}'}}
BEYOND_THE_END = {'dtype': 'F32', 'shape': [9], 'data_offsets': [0, 36]}
NO_RUN = 'it is not a safetensors file with the metadata of a run'


@pytest.mark.parametrize('data, reason', [
    ((2 ** 62).to_bytes(8, 'little') + b'{}', NO_RUN), (b'\xff' * 64, NO_RUN), (pickle.dumps(arrays(9)), NO_RUN),
    (b'', NO_RUN), (b'\2\0\0\0\0\0\0\0{', NO_RUN), (header([1]), NO_RUN),
    (header({'__metadata__': {'run': []}}), NO_RUN), (header({'w': BEYOND_THE_END, **A_RUN}), NO_RUN),
    (b'[' * 100_008, NO_RUN), ((100_000).to_bytes(8, 'little') + b'[' * 100_000, NO_RUN),
    (with_metadata(), NO_RUN), (with_metadata(run='{"step": 9'), NO_RUN), (with_metadata(run='{}'), NO_RUN),
    (with_metadata(run='[9]'), NO_RUN), (with_metadata(run='{"step": "nine"}'), "its metadata says step 'nine'"),
    (with_metadata(run='{"step": 8}'), 'its metadata says step 8'),
    (safetensors.numpy.save({}, metadata={'run': '{"step": 9}'}), 'it holds no arrays')])
def test_a_file_whose_name_is_right_and_whose_content_is_not_is_skipped(checkpoints, data, reason):
    save(checkpoints, 1)
    file = checkpoints.folder / f'step-00000009-{hashlib.sha256(data).hexdigest()[:32]}.safetensors'
    file.write_bytes(data)
    assert checkpoints.newest()[1]['step'] == 1 and checkpoints.at(9) is None
    assert checkpoints.lines == [f'checkpoint {file.name} is broken ({reason}): skipped'] * 2


def test_a_checkpoint_of_another_recipe_is_refused_by_name(tmp_path):
    def opened(recipe):
        return Checkpoints(tmp_path, recipe=json.dumps(recipe))
    save(opened({'seed': 1, 'training': {'steps': 3}, 'gone': 1}), 1, best=True)
    assert opened({'seed': 1, 'training': {'steps': 3.}, 'new': 1}).newest()[1]['step'] == 1
    other = opened({'seed': 0, 'training': {'steps': 4}})
    for read, kind in ((other.newest, 'step'), (other.best, 'best'), (lambda: other.at(1), 'step')):
        with pytest.raises(RunError) as error:
            read()
        file, = tmp_path.glob(f'{kind}-*')
        assert str(error.value) == (f'checkpoint {file} is of another recipe (seed: 1 there, 0 here; '
                                    'steps: 3 there, 4 here): remove it, or put it back where it came from')


def test_a_checkpoint_of_a_version_that_wrote_no_recipe_is_taken(tmp_path):
    save(Checkpoints(tmp_path), 1)
    assert Checkpoints(tmp_path, recipe='{"seed": 1}').newest()[1] == {'data': 'x', 'step': 1}


def test_leftovers_of_a_killed_writer_are_not_checkpoints(checkpoints):
    save(checkpoints, 1)
    (checkpoints.folder / f'.step-00000002-{"0" * 32}.safetensors.99.tmp').write_bytes(b'half')
    assert checkpoints.newest()[1]['step'] == 1


def test_a_write_that_fails_says_what_is_left_and_leaves_it(checkpoints, monkeypatch):
    save(checkpoints, 1)
    # /dev/full answers every write as a full disk does.
    monkeypatch.setattr('training.files.open', lambda path, mode: open('/dev/full', mode), raising=False)
    checkpoints.save(2, arrays(2), {})
    with pytest.raises(RunError, match='of step 2 could not be written .*No space left on device; that of step 1 is'):
        checkpoints.wait()
    monkeypatch.undo()
    assert checkpoints.newest()[1]['step'] == 1


def test_a_failed_write_leaves_what_the_file_held(tmp_path, monkeypatch):
    path = tmp_path / 'results.json'
    path.write_text('before')
    monkeypatch.setattr('training.files.os.replace', lambda *_: (_ for _ in ()).throw(OSError('no')))
    with pytest.raises(OSError):
        write_atomically(path, b'after')
    assert path.read_text() == 'before' and list(tmp_path.iterdir()) == [path]


def test_files_can_be_read_without_the_project(checkpoints):
    save(checkpoints, 3)
    assert set(safetensors.numpy.load_file(newest_file(checkpoints))) == set(arrays(3))
