"""Questions about texts, from JSON in the layout of SQuAD 1.1."""

import json

import pytest
import tensorflow as tf

import data
from errors import UserError


def article(*paragraphs):
    return {'title': 't', 'paragraphs': [{'context': context, 'qas': [
        {'id': f'{i}-{k}', 'question': f' {question} ', 'answers': [{'text': text, 'answer_start': start}
                                                                    for text, start in answers]}
        for k, (question, answers) in enumerate(qas)]} for i, (context, qas) in enumerate(paragraphs)]}


def written(folder, **splits):
    for split, articles in splits.items():
        (folder / f'{split}.json').write_text(json.dumps({'version': '1.1', 'data': articles}), encoding='utf-8')
    return f'files/{folder}'


def many(count):
    names = [f'{chr(97 + i // 26)}{chr(97 + i % 26)}' for i in range(count)]
    return article(*((f'text {name} ends', [(f'which {k}?', [(name, 5)]) for k in range(3)]) for name in names))


def test_answers_stand_at_bytes(tmp_path):
    train = article(('ü b c d', [('what?', [('b', 2), ('b c', 2)]), ('and?', [('ü', 0)])]))
    dataset = data.open_dataset(written(tmp_path, train=[train], validation=[train], test=[train]))
    rows = {name: t.numpy().tolist() for name, t in dataset.test.gather(tf.constant([0, 1], tf.int64)).items()}
    assert rows['question'] == [b'what?', b'and?'] and rows['context'] == ['ü b c d'.encode()] * 2
    assert rows['answers'] == [[b'b', b'b c'], ['ü'.encode(), b'']] and rows['starts'] == [[3, 3], [0, -1]]


def test_all_questions_of_a_text_are_in_one_split(tmp_path):
    dataset = data.open_dataset(written(tmp_path, train=[many(200)]))
    seen = []
    for split in ('train', 'validation', 'test'):
        source = dataset.split(split)
        contexts = source.gather(tf.range(source.num_examples, dtype=tf.int64), ['context'])['context'].numpy()
        seen.append(set(contexts))
        assert len(contexts) == 3 * len(seen[-1]) > 0
    assert len(set.union(*seen)) == 200 == sum(map(len, seen))


@pytest.mark.parametrize('content, parts', [
    ('{"data": [{"paragraphs": 3}]}', ['must be in the layout of SQuAD 1.1']),
    ('{"data": [{"paragraphs": [{"context": "a", "qas": [{"id": 1, "question": null, "answers": [{"text": "a", '
     '"answer_start": 0}]}]}]}]}', ['must be in the layout of SQuAD 1.1']),
    ('{"paragraphs": ', ['must be in the layout of SQuAD 1.1']),
    ([article(('a b', [('q', [('b', 0)])]))], ['question 0-0', 'answer_start', "'b' at 0"]),
    ([article(('a b', [('q', [('', 0)])]))], ['question 0-0', "'' at 0"]),
    ([article(('a b', [('q', [])]))], ['question 0-0', 'SQuAD 2.0']),
])
def test_a_broken_file_is_one_line(content, parts, tmp_path):
    if isinstance(content, str):
        (tmp_path / 'train.json').write_text(content)
    else:
        written(tmp_path, train=content)
    with pytest.raises(UserError) as error:
        data.open_dataset(f'files/{tmp_path}')
    message = str(error.value)
    assert '\n' not in message and all(part in message for part in ['`dataset`', str(tmp_path), *parts])
    assert message.count('`dataset`') == 1
