"""Texts by class, as files and as lines; one clear line for each thing that can be wrong with them."""

import csv
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from data import open_dataset
from draws import Draws
from errors import UserError
from tests.opened import opened

TEXTS = [(('good', 'bad')[i % 2], f'text {chr(97 + i // 26)}{chr(97 + i % 26)} is {("fine", "poor")[i % 2]}')
         for i in range(100)]


def write_table(path, examples):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{label}\t{text}\n' for label, text in examples), encoding='utf-8')


def write_files(folder, examples):
    for number, (label, text) in enumerate(examples):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f'{number:04}.txt').write_text(f'{text}\n', encoding='utf-8')


def examples_of(dataset, split):
    source, names = dataset.split(split), dataset.fields['label'].names
    examples = source.gather(tf.range(source.num_examples, dtype=tf.int64))
    return [(names[label], text.decode()) for label, text in zip(examples['label'].numpy(), examples['text'].numpy())]


def write_csv(path, examples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', encoding='utf-8-sig', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(['id', 'text', 'label'])
        rows.writerows([number, f' {text}\n', label] for number, (label, text) in enumerate(examples))


def write_json_lines(path, examples):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{json.dumps({"text": text, "label": label})}\n\n' for label, text in examples))


@pytest.mark.parametrize('write', [
    lambda folder, split, examples: write_table(folder / f'{split}.tsv', examples),
    lambda folder, split, examples: write_csv(folder / f'{split}.csv', examples),
    lambda folder, split, examples: write_json_lines(folder / f'{split}.jsonl', examples),
    lambda folder, split, examples: write_files(folder / split, examples)], ids=['tsv', 'csv', 'jsonl', 'files'])
def test_own_splits(tmp_path, write):
    parts = {'train': TEXTS[:70], 'validation': TEXTS[70:80], 'test': TEXTS[80:]}
    for split, examples in parts.items():
        write(tmp_path / 'mine', split, examples)
    for dataset in (open_dataset(f'files/{tmp_path}/mine'), open_dataset('mine', data_dir=str(tmp_path))):
        assert str(dataset).endswith(f': 70 train, 10 validation, 20 test, from {tmp_path}/mine')
        assert dataset.fields['label'].names == ('bad', 'good')
        assert {split: sorted(examples_of(dataset, split)) for split in parts} == {
            split: sorted(examples) for split, examples in parts.items()}


def test_the_environment_names_the_folder_too(tmp_path, monkeypatch):
    write_table(tmp_path / 'mine' / 'texts.tsv', TEXTS)
    monkeypatch.setenv('CONGRUENT_DATA', str(tmp_path))
    assert open_dataset('mine').train.num_examples > 70


@pytest.mark.parametrize('split', ['train.tsv', 'texts.tsv'])
def test_a_missing_split_is_taken_by_hash_and_kept_when_texts_are_added(tmp_path, split):
    write_table(tmp_path / split, TEXTS[:80])
    before = open_dataset(f'files/{tmp_path}')
    write_table(tmp_path / split, TEXTS[::-1])
    after = open_dataset(f'files/{tmp_path}')
    for part in ('train', 'validation', 'test'):
        assert set(examples_of(before, part)) < set(examples_of(after, part))
    assert before.fingerprint != after.fingerprint


def test_both_layouts_hold_the_same(tmp_path):
    write_table(tmp_path / 'lines' / 'texts.tsv', TEXTS)
    write_files(tmp_path / 'files', TEXTS)
    lines, files = (open_dataset(f'files/{tmp_path}/{name}') for name in ('lines', 'files'))
    for split in ('train', 'validation', 'test'):
        assert sorted(examples_of(lines, split)) == sorted(examples_of(files, split))


@pytest.mark.parametrize('content, message', [
    (b'good\tone\nbad two\n', "train.tsv: each line must be a label, a tab and a text; line 2 has no tab: 'bad two'"),
    (b'good\tone\n\xff\tx\n', 'train.tsv must be UTF-8; line 2 is not'),
    (b'good\tone\n', "must have at least two classes. Received: only 'good'"),
    (b'', 'gives an empty split: train, validation, test')])
def test_errors_in_a_table(tmp_path, content, message):
    (tmp_path / 'train.tsv').write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_dataset(f'files/{tmp_path}')


def test_names_of_classes_need_not_be_utf_8(tmp_path):
    names = [os.fsdecode(b'caf\xe9'), 'tea']
    for split in ('train', 'validation', 'test'):
        write_files(tmp_path / split, [(name, f'{split} {i}') for i in range(3) for name in names])
    dataset, task = opened(f'files/{tmp_path}', tokenizer='words')
    assert dataset.fields['label'].names == ('caf\N{REPLACEMENT CHARACTER}', 'tea')
    assert tf.constant(task.class_names).shape == [2]      # as an export holds them


@pytest.mark.parametrize('name', ['a/pipe.txt', 'train.tsv', 'source.txt'])
def test_a_pipe_is_refused(tmp_path, name):
    """Reading it waits for a writer without end."""
    write_files(tmp_path, [('a', 'text'), ('b', 'text')] if '/' in name else [])
    (tmp_path / 'target.txt').touch()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match='must be a regular file|holds no images|is missing'):
        open_dataset(f'files/{tmp_path}')


def test_errors_in_files(tmp_path):
    write_files(tmp_path / 'train', TEXTS)
    write_files(tmp_path / 'test', [('ugly', 'x')])
    with pytest.raises(UserError, match='test has classes that train has not: ugly'):
        open_dataset(f'files/{tmp_path}')
    (tmp_path / 'train' / 'bad' / '0001.txt').write_bytes(b'\xff')
    with pytest.raises(UserError, match='bad/0001.txt must be UTF-8'):
        open_dataset(f'files/{tmp_path}')


@pytest.mark.parametrize('tokenizer', ['words', 'subwords'])
def test_batches_of_the_task(tmp_path, tokenizer):
    write_table(tmp_path / 'texts.tsv', TEXTS)
    dataset, task = opened(f'files/{tmp_path}', tokenizer=tokenizer, vocabulary_size=300, max_length=9)
    x, y, weights = task.batch(task.rows(dataset.train).gather(tf.range(5, dtype=tf.int64)), Draws(0))
    assert x['ids'].shape == x['mask'].shape == (5, 9) and weights.numpy().tolist() == [1.] * 5
    np.testing.assert_array_equal(x['mask'], x['ids'] != task.text.special.pad)
    assert [task.class_names[label] for label in y] == [label for label, _ in examples_of(dataset, 'train')[:5]]
    assert task.sizes == {'vocabulary_size': task.text.tokenizer.vocabulary_size, 'length': 9, 'outputs': 2}


def test_word_dropout_takes_words_of_training_texts_only(tmp_path):
    write_table(tmp_path / 'texts.tsv', TEXTS)
    dataset, task = opened(f'files/{tmp_path}', tokenizer='words', word_dropout=0.4, max_length=9)
    rows, special = task.rows(dataset.train).gather(tf.range(60, dtype=tf.int64)), task.text.special
    kept, (dropped, mask) = rows['ids'].numpy(), (t.numpy() for t in task.batch(rows, Draws(0), True)[0].values())
    words = (kept != special.pad) & (kept != special.end)
    assert set(dropped[dropped != kept]) == {special.unknown} and not (dropped != kept)[~words].any()
    assert abs((dropped != kept)[words].mean() - 0.4) < 0.1
    np.testing.assert_array_equal(mask, kept != special.pad)
    np.testing.assert_array_equal(task.batch(rows, Draws(0))[0]['ids'], kept)


@pytest.mark.parametrize('file, content, parts', [
    ('train.csv', b'label;text\na;b\n', ['columns label and text', 'label;text']),
    ('train.csv', b'', ['columns label and text', 'nothing']),
    ('train.csv', b'label,text\na,b\nc\n', ['label and a text', 'line 3']),
    ('train.csv', b'label,text\na,\xff\n', ['CSV in UTF-8']),
    ('train.jsonl', b'{"label": "a", "text": "b"}\n{"label": "a"}\n', ['line 2', '"label": "a"']),
    ('texts.jsonl', b'{"label": "a", "text": 3}\n', ['line 1']),
    ('texts.jsonl', b'a b\n', ['line 1', 'a b']),
    ('test.csv', b'label,text\na,b\n', ['must hold train.csv or texts.csv']),
])
def test_a_broken_table_is_one_line(tmp_path, file, content, parts):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError) as error:
        open_dataset(f'files/{tmp_path}')
    message = str(error.value)
    assert '\n' not in message and all(part in message for part in ['`dataset`', str(tmp_path), *parts])
