"""files/FOLDER with two parallel texts; one clear line for each thing that can be wrong with them."""

import pytest
import tensorflow as tf

from data import open_dataset
from data.source import split_of
from data.sources.folders import HELD_OUT
from data.sources.parallel import read_lines, read_pairs
from errors import RunError, UserError
from tests.opened import opened, task_of

LETTERS = 'abcdefghij'
PAIRS = [(f'{a}{b} is the {number} of them', f'{b}{a} ist {number}') for number, (a, b) in
         enumerate((a, b) for a in LETTERS for b in LETTERS)]
SMALL = {'vocabulary_size': 300, 'max_length': 32}


def write(folder, pairs):
    folder.mkdir(parents=True, exist_ok=True)
    for name, sentences in zip(('source.txt', 'target.txt'), zip(*pairs)):
        (folder / name).write_text('\n'.join(sentences) + '\n', encoding='utf-8')
    return folder


def pairs_of(source):
    examples = source.gather(tf.range(source.num_examples, dtype=tf.int64))
    return [(s.decode(), t.decode()) for s, t in zip(*(examples[side].numpy() for side in ('source', 'target')))]


def splits_of(dataset):
    return {split: pairs_of(dataset.split(split)) for split in ('train', 'validation', 'test')}


def test_split_by_hash_is_kept_when_lines_are_added(tmp_path):
    before = splits_of(open_dataset(f'files/{write(tmp_path / "a", PAIRS[:80])}'))
    assert sorted(pair for pairs in before.values() for pair in pairs) == sorted(PAIRS[:80])
    assert len(before['train']) > 4 * len(before['test']) > 0 < len(before['validation'])
    after = splits_of(open_dataset('files/b', data_dir=str(write(tmp_path / 'b', PAIRS[::-1]).parent)))
    assert all(set(before[split]) <= set(after[split]) for split in before) and after['train'][0] in PAIRS[80:]


def test_equal_sources_stay_together(tmp_path):
    again = [(source.upper(), f'auch {target}') for source, target in PAIRS]
    splits = splits_of(open_dataset(f'files/{write(tmp_path, PAIRS + again)}'))
    sources = [{source.casefold() for source, _ in pairs} for pairs in splits.values()]
    assert sum(map(len, sources)) == len(set.union(*sources)) == len(PAIRS)


def test_own_split_keeps_its_order(tmp_path):
    parts = {'train': PAIRS[:70], 'val': PAIRS[70:80], 'test': PAIRS[80:]}
    for name, pairs in parts.items():
        write(tmp_path / name, pairs)
    dataset = open_dataset(f'files/{tmp_path}')
    assert str(dataset) == f'files/{tmp_path}: 70 train, 10 validation, 20 test, from {tmp_path}'
    assert list(splits_of(dataset).values()) == list(parts.values())


def test_a_missing_split_is_taken_from_train(tmp_path):
    write(tmp_path / 'train', PAIRS[:80])
    write(tmp_path / 'test', PAIRS[80:])
    splits = splits_of(open_dataset(f'files/{tmp_path}'))
    assert splits['test'] == PAIRS[80:] and sorted(splits['train'] + splits['validation']) == sorted(PAIRS[:80])
    assert splits['validation'] and all(split_of(s, HELD_OUT) == 'validation' for s, _ in splits['validation'])


def test_the_tokeniser_knows_the_training_split_alone(tmp_path):
    write(tmp_path / 'train', PAIRS)
    models = []
    for held_out in (PAIRS[:9], [('ΩΩ', 'Ω Ω')] * 9):
        for split in ('validation', 'test'):
            write(tmp_path / split, held_out)
        models.append(opened(f'files/{tmp_path}', 'translation', **SMALL)[1].tokenizer_files)
    assert models[0] == models[1]


def test_a_given_tokeniser_is_used(tmp_path):
    name = f'files/{write(tmp_path, PAIRS)}'
    dataset, task = opened(name, 'translation', **SMALL)
    again = task_of('translation', dataset, task.tokenizer_files, vocabulary_size=10 ** 6, max_length=20)
    assert again.tokenizer_files == task.tokenizer_files and again.sizes['target_vocabulary_size'] == 300
    assert again.source(tf.constant(['a'])).shape == (1, 20)
    with pytest.raises(RunError, match='holds none of words.json, .*Found: words.txt'):
        task_of('translation', dataset, {'words.txt': b'a'})


def test_lines(tmp_path):
    file = tmp_path / 'lines'
    file.write_bytes(b'\xef\xbb\xbf one \r\n\ntwo\xe2\x80\xa8\xc2\x85three\x0c.\nlast')
    assert read_lines(file) == ['one', '', 'two\u2028\x85three\x0c.', 'last']
    file.write_bytes(b'')
    assert read_lines(file) == []


def test_a_pair_with_an_empty_side_is_dropped(tmp_path):
    written = [('a', 'A'), ('', 'B'), ('c', ' '), ('', ''), ('d', 'D')]
    assert read_pairs(write(tmp_path, written)) == [('a', 'A'), ('d', 'D')]


@pytest.mark.parametrize('source, target, message', [
    (b'a\nb\nc\n', b'A\nB\n', 'must have equally many lines. Received: 3 and 2 lines'),
    (b'a\nb\n', b'A\n\xff\xfe B\n', r'target.txt must be UTF-8; line 2 is not: .*xff'),
    (b'a\nb\n', None, 'must hold source.txt and target.txt; target.txt is missing'),
    (None, b'A\n', 'must hold source.txt and target.txt; source.txt is missing'),
    (b'', b'', 'gives an empty split: train, validation, test .received 0 train, 0 validation, 0 test'),
    (b'a\n', b'A\n', 'gives an empty split: ')])
def test_errors(tmp_path, source, target, message):
    for name, content in (('source.txt', source), ('target.txt', target)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_dataset(f'files/{tmp_path}')


def test_texts_must_be_in_one_place(tmp_path):
    write(tmp_path / 'test', PAIRS)
    with pytest.raises(UserError, match='either itself or in train/. Received: neither'):
        open_dataset(f'files/{tmp_path}')
    write(write(tmp_path, PAIRS) / 'train', PAIRS)
    with pytest.raises(UserError, match='either itself or in train/. Received: both'):
        open_dataset(f'files/{tmp_path}')


def test_a_folder_of_neither_kind(tmp_path):
    with pytest.raises(UserError, match='holds no images: .* nor texts: in sub-folders, train.tsv, or source.txt and'):
        open_dataset(f'files/{tmp_path}')
