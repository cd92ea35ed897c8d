"""Questions about texts, in the JSON of SQuAD 1.1 (arXiv:1606.05250): the answer is a part of the text.

    FOLDER/SPLIT.json

{"data": [{"paragraphs": [{"context": ..., "qas": [{"id", "question", "answers": [{"text", "answer_start"}]}]}]}]}
`answer_start` counts characters. Questions of one text stay together: a split that is not there is a tenth of train's
texts.
"""

import json

import numpy as np

from data.dataset import Answers, Dataset, Offsets, Text
from data.source import Tensors, split_of
from data.sources.folders import HELD_OUT, check_not_empty, check_regular, own_splits, three_splits
from errors import UserError

NOWHERE = -1
LOOKED_AT = 4096        # bytes


def holds_squad(folder):
    return any(path is not None and path.is_file() and _begins_so(path)
               for path in own_splits(folder, '.json').values())


def _begins_so(path):
    with path.open('rb') as file:
        return b'"paragraphs"' in file.read(LOOKED_AT)


def open_squad(name, folder):
    own = own_splits(folder, '.json')
    train = own.pop('train')
    if train is None:
        raise UserError(f'`dataset` {folder} must hold train.json')
    own = {split: _read(path) if path else None for split, path in own.items()}
    return of_examples(name, own, _read(train), folder)


def of_examples(name, own, train, origin):
    """The Dataset of examples, as `example` gives them. own: {'validation': [examples] or None, 'test': ...}."""
    splits = three_splits(own, train, lambda example: split_of(example[1], HELD_OUT))
    check_not_empty(origin, splits, 'questions')
    most = max(len(texts) for examples in splits.values() for *_, texts, _ in examples)
    sources = {split: _source(examples, most) for split, examples in splits.items()}
    fields = {'question': Text('en'), 'context': Text('en'), 'answers': Answers(most), 'starts': Offsets(most)}
    return Dataset(name, sources['train'], sources['validation'], sources['test'], fields=fields, origin=str(origin))


def _read(path):
    """[(question, context, [answers], [bytes at which they start])] of a file."""
    check_regular(path)
    try:
        content = json.loads(path.read_bytes())
        return [example(path, paragraph['context'], qa) for article in content['data']
                for paragraph in article['paragraphs'] for qa in paragraph['qas']]
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f'`dataset` {path} must be in the layout of SQuAD 1.1 ({type(error).__name__}: {error})'
                        ) from None


def example(path, context, qa):
    """(question, context, [answers], [bytes at which they start]) of a question that `path` holds.

    Raises:
        UserError: it has no answer, or one that is not there.
    """
    texts, starts = [], []
    for answer in qa['answers']:
        text, start = answer['text'], answer['answer_start']
        if not text or context[start:start + len(text)] != text:
            raise UserError(f'`dataset` {path}: question {qa["id"]} must have answers that stand in its context where '
                            f'answer_start says. Received: {text!r} at {start}')
        texts.append(text)
        starts.append(len(context[:start].encode()))
    if not texts:
        raise UserError(f'`dataset` {path}: question {qa["id"]} must have an answer: SQuAD 2.0, with questions that '
                        'have none, is not read')
    return qa['question'].strip(), context, texts, starts


def _source(examples, most):
    questions, contexts, texts, starts = zip(*examples)
    answers = np.full((len(examples), most), b'', object)
    places = np.full((len(examples), most), NOWHERE, np.int64)
    for row, (some, where) in enumerate(zip(texts, starts)):
        answers[row, :len(some)] = [text.encode() for text in some]
        places[row, :len(where)] = where
    return Tensors(question=_bytes(questions), context=_bytes(contexts), answers=answers, starts=places)


def _bytes(texts):
    return np.array([text.encode() for text in texts], object)
