"""metrics.jsonl: what a resumed run keeps of it, and what an interval of skipped steps says."""

import json

import pytest

from tasks.task import Task
from training.loop import NEVER, Call
from training.runlog import RunLog


class Any(Task):
    name, training_metrics = 'any', ('accuracy',)

    def __init__(self):
        pass


RECORDS = [{'step': step, 'loss': 1.} for step in (10, 20, 30)]


def lines(*records):
    return b''.join(json.dumps(record).encode() + b'\n' for record in records)


def open_log(workdir, start_step=0, **options):
    return RunLog(workdir, Any(), 100, 8, start_step, **options)


@pytest.mark.parametrize('broken, number', [
    (b'{"step": 15, "lo', 4), (b'{"step": 15, "lo\n', 3), (b'\0\0\0\xff\xfe\x80\n', 3), (b'\n', 3), (b'[15]\n', 3),
    (b'{"loss": 1}\n', 3), (b'{"step": "15"}\n', 3), (b'[' * 100_000 + b'\n', 3)])
def test_a_line_that_is_no_record_is_named_and_dropped(tmp_path, capsys, broken, number):
    file = tmp_path / 'metrics.jsonl'
    before, after = lines(*RECORDS[:2]), lines(RECORDS[2])
    file.write_bytes(before + broken + after if broken.endswith(b'\n') else before + after + broken)
    log = open_log(tmp_path, 20)
    assert capsys.readouterr().out == f'warning: {file}: line {number} is not a record and was dropped\n'
    log.evaluation(25, 'validation', {'loss': 2., 'count': 3})
    log.close()
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert kept == [*RECORDS[:2], {'step': 25, 'split': 'validation', 'loss': 2., 'count': 3}]


def test_several_broken_lines_are_one_warning(tmp_path, capsys):
    (tmp_path / 'metrics.jsonl').write_bytes(b'?\n' + lines(RECORDS[0]) + b'?\n?')
    open_log(tmp_path, 20).close()
    assert capsys.readouterr().out.endswith('line 1 is not a record and was dropped, as were 2 more\n')
    assert (tmp_path / 'metrics.jsonl').read_bytes() == lines(RECORDS[0])


def test_an_interval_of_skipped_steps_shows_no_loss(tmp_path, capsys):
    log = open_log(tmp_path)
    nothing, one = {'loss': (0., 0.), 'accuracy': (0., 0.), 'grad_norm': (0., 0.)}, {'loss': (6., 2.)}
    log.add(Call(4, {**nothing, 'skipped': (4., 4.)}, 0., [], 1, 4), 1., False)
    log.interval(4, 0.1, 1.)
    log.add(Call(2, {**nothing, **one, 'skipped': (1., 2.)}, 0., [], NEVER, 0), 1., False)
    log.interval(6, 0.1, 2.)
    log.close()
    first, second = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
    assert not {'loss', 'accuracy', 'grad_norm'} & first.keys() and first['skipped_steps'] == 4
    assert second['loss'] == 3. and second['skipped_steps'] == 1
    said = capsys.readouterr().out.splitlines()
    assert 'loss' not in said[0] and '4 of 4 steps up to step 4 had' in said[1]
    assert 'loss 3.0000' in said[2] and '1 of 2 steps up to step 6 had' in said[3]
