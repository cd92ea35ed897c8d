"""Kills at random moments change nothing (E2): runs killed by SIGKILL end with the bits of a run that nobody killed.

    python -m benchmarks.chaos --kills=27 --seed=0

For each setting: a reference run, then the same command, killed again and again until its share of kills is used up,
and then left to finish. Some of the moments are random; the others are aimed at what lasts only milliseconds, such as a
checkpoint write. Where each kill fell is measured (benchmarks/chaos_victim.py), not assumed. Exit code 1 if a run
differs. Linux only.
"""

import collections
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import tempfile
import time

from absl import flags

from benchmarks.chaos_victim import DAMAGES, PLACES, UNKNOWN, Victim, damage, seeded
from benchmarks.report import RESULTS
from cli import run
from errors import FAILED, RunError, UserError
from training.checkpoint import Checkpoints, step_of

COMMON = ['train.py', '--batch_size=32', '--ema=0.9', '--checkpoint_every=5', '--log_every=5', '--steps_per_call=2']
SCENES = ['--dataset=digit_scenes', '--image_size=32', '--width=8', '--steps=30', '--warmup_steps=5', '--eval_every=10']
SETTINGS = {
    'moving': ['--model=mlp', '--steps=40', '--eval_every=10', '--augment=shift', '--accumulate=4'],
    'workers': ['--model=lstm', '--steps=30', '--eval_every=10', '--augment=shift', '--num_workers=2'],
    'mlp': ['--model=mlp', '--steps=60', '--eval_every=20', '--augment=shift'],
    'cnn': ['--model=cnn', '--steps=30', '--eval_every=10', '--augment=shift'],
    'lstm': ['--model=lstm', '--steps=40', '--eval_every=20', '--augment=shift'],
    'detection': ['--model=centernet', *SCENES],
    'segmentation': ['--model=unet', *SCENES],
    # With dropout. Its 10,000 numbers are decoded twice, at the end: most of the run is evaluation.
    'transformer': ['--model=transformer', '--steps=10', '--warmup_steps=5', '--batch_size=128',
                    '--checkpoint_every=2', '--log_every=2'],
}
MOVES = ([], ['--virtual_devices=2'], ['--virtual_devices=4'], ['--num_workers=2'])
# The kills in order of their settings; a shorter command takes the first ones.
PLAN = (('mlp', 'checkpoint write'), ('moving', 'random'), ('moving', 'checkpoint write'), ('mlp', 'random'),
        ('moving', 'export'), ('workers', 'random'), ('workers', 'checkpoint write'), ('workers', 'evaluation'),
        ('workers', 'random'), ('workers', 'export'), ('cnn', 'step'), ('cnn', 'checkpoint write'),
        ('cnn', 'evaluation'), ('cnn', 'export'), ('cnn', 'results'), ('lstm', 'random'), ('lstm', 'step'),
        ('lstm', 'evaluation'), ('lstm', 'checkpoint write'), ('transformer', 'checkpoint write'),
        ('transformer', 'random'), ('transformer', 'evaluation'), ('moving', 'random'), ('moving', 'evaluation'),
        ('moving', 'results'), ('mlp', 'random'), ('mlp', 'random'), ('detection', 'random'),
        ('detection', 'checkpoint write'), ('detection', 'evaluation'), ('segmentation', 'random'),
        ('segmentation', 'step'), ('segmentation', 'evaluation'))
_LATE = ('evaluation', 'export', 'results')      # a run is killed there last, for little is left of it then
# Random moments lie within this share of the reference's time, from when it says how it began. A resumed run has
# less left than the reference; most of the rest is the export, at which other kills are aimed.
RANDOM = 0.6
TRIES = 10                                       # runs of a setting that may end before the moment of their kill
CLOCKS = ('examples_per_second', 'data_wait_fraction', 'seconds')      # of a record: they differ between any two runs


def main():
    started = time.monotonic()
    settings = flags.FLAGS.settings
    if unknown := [s for s in settings if s not in SETTINGS]:
        raise UserError(f'`settings` must be some of {", ".join(SETTINGS)}. Received: {unknown[0]}')
    if flags.FLAGS.kills < 1:
        raise UserError(f'`kills` must be at least 1. Received: kills={flags.FLAGS.kills}')
    plan = [entry for entry in PLAN if entry[0] in settings]
    plan = [plan[i % len(plan)] for i in range(flags.FLAGS.kills)]
    folder = pathlib.Path(tempfile.mkdtemp(prefix='chaos-'))
    measured = {}
    for name in settings:
        if aims := [aim for setting, aim in plan if setting == name]:
            measured[name] = measure(name, aims, folder / name)
    totals = summary(measured)
    print(table(measured, totals))
    _save(measured, totals, time.monotonic() - started)
    if totals['runs that differed']:
        print(f'the runs are kept in {folder}')
        return FAILED
    shutil.rmtree(folder)


def measure(name, aims, folder):
    """A reference run of a setting, and as many killed ones as it takes to use up the kills.

    Args:
        aims: one a kill: 'random', or the place to aim at.
    """
    folder.mkdir()
    command = [*COMMON, *SETTINGS[name]]
    with Victim(command, folder / 'reference', folder / 'reference.log') as reference:
        begun = reference.wait_until_it_says_how_it_began()
        code, seconds = reference.wait(), reference.seconds
    if code:
        raise RunError(f'the reference run of {name} ended with exit code {code}\n{reference.output}')
    setting = {'command': ['python', *command], 'seconds': round(seconds, 1),
               'seconds_after_start': round(seconds - begun, 1),
               'reference': outcome(folder / 'reference'), 'runs': []}
    print(f'{name}: reference {setting["seconds"]} s', flush=True)
    left = sorted(aims, key=lambda aim: _LATE.index(aim) + 1 if aim in _LATE else 0)
    while left and len(setting['runs']) < TRIES:
        draw = seeded(flags.FLAGS.seed, name, len(setting['runs']))
        done = killed_run(name, left, setting, folder / f'run-{len(setting["runs"])}', draw)
        setting['runs'].append(done)
        left = left[sum(start['kill'] is not None for start in done['starts']):]
    setting['kills_left_over'] = len(left)
    return setting


def killed_run(name, aims, setting, workdir, draw):
    """One run, killed once at each aim in turn, until it ends. Returns what happened, and how it differs."""
    moves = _shuffled(MOVES, draw) if name == 'moving' else iter(lambda: [], None)
    damages = _shuffled((*DAMAGES, None), draw) if name == 'moving' else iter(lambda: None, 0)
    aims, starts, hurt = list(aims), [], None
    killed = True
    while killed:
        move = next(moves)
        log = workdir.with_name(f'{workdir.name}-{len(starts)}.log')
        with Victim([*setting['command'][1:], *move], workdir, log) as victim:
            moment = draw.uniform(0, RANDOM * setting['seconds_after_start'])
            found = victim.freeze_in(aims[0], moment, draw) if aims else None
            killed = _kill(victim, aims.pop(0), *found, draw) if found else None
            code = victim.wait()
        starts.append({'devices': ' '.join(move), 'said': victim.said, 'exit_code': code, 'kill': killed})
        if hurt:
            starts[-1]['damage_reported'] = f'checkpoint {hurt} is broken' in victim.output
        if killed:
            how = next(damages) if victim.checkpoint_steps() else None
            hurt = _damage_newest(workdir, how, draw) if how else None
            killed['damage'] = how if hurt else None
            print(f'  killed in {killed["fell_in"]:<16} aimed at {killed["aimed_at"]:<16} {killed["target"]:<8} '
                  f'{starts[-1]["said"]} {" ".join(move)}' + (f'; checkpoint {how}' if hurt else ''), flush=True)
    differs = differences(setting['reference'], outcome(workdir)) if code == 0 else [
        f'ended with exit code {code}: {victim.output[-2000:]}']
    for line in differs:
        print(f'  DIFFERS: {line}', flush=True)
    return {'starts': starts, 'differences': differs, 'temporary_files_left': len([*workdir.rglob('.*.tmp')])}


def _kill(victim, aim, place, processes, draw):
    steps = victim.checkpoint_steps()
    seconds = victim.seconds
    target = draw.choice(list(processes))
    code = victim.kill(processes, target)
    return {'aimed_at': aim, 'fell_in': place, 'seconds': round(seconds, 2),
            'newest_checkpoint': steps[-1] if steps else None, 'target': target, 'exit_code': code, 'damage': None}


def _damage_newest(workdir, how, draw):
    """Returns the name of the damaged file."""
    newest = max((workdir / 'checkpoints').glob('step-*.safetensors'), key=step_of)
    damage(newest, how, draw)
    return newest.name


def _shuffled(things, draw):
    """Endless; each as often as the others."""
    while True:
        yield from draw.sample(things, len(things))


def outcome(workdir):
    """What must not depend on kills: results, records without clocks, and the arrays of the best checkpoint."""
    results = json.loads((workdir / 'results.json').read_text())
    records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    digest = hashlib.sha256()
    for key, array in sorted(Checkpoints(workdir / 'checkpoints').best()[0].items()):
        digest.update(f'{key} {array.dtype} {array.shape}'.encode() + array.tobytes())
    return {**{key: results[key] for key in ('weights_sha256', 'eval', 'best')}, 'best_sha256': digest.hexdigest(),
            'records': [{k: v for k, v in record.items() if k not in CLOCKS} for record in records]}


def differences(reference, other):
    """One line, with both values, for each part of two outcomes that is not equal to the last bit."""
    found = [f'{key}: {reference[key]} there, {other[key]} here'
             for key in reference if key != 'records' and reference[key] != other[key]]
    ours, theirs = ({(r['step'], r.get('split', 'train')): r for r in o['records']} for o in (other, reference))
    if len(ours) != len(other['records']):
        found.append(f'records: {len(other["records"])} here, of {len(ours)} steps')
    return found + [f'record of {key}: {theirs.get(key)} there, {ours.get(key)} here'
                    for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]


def summary(measured):
    kills = [kill for setting in measured.values() for kill in _kills(setting)]
    places = collections.Counter(kill['fell_in'] for kill in kills)
    runs = [r for setting in measured.values() for r in setting['runs']]
    return {'kills': len(kills), 'by place': {place: places[place] for place in (*PLACES, UNKNOWN)},
            'aimed': sum(kill['aimed_at'] != 'random' for kill in kills),
            'aimed and hit': sum(kill['aimed_at'] == kill['fell_in'] for kill in kills),
            'damaged': sum(kill['damage'] is not None for kill in kills),
            'kills left over': sum(setting['kills_left_over'] for setting in measured.values()),
            'runs': len(runs), 'runs that differed': sum(bool(r['differences']) for r in runs)}


def _kills(setting):
    return [start['kill'] for r in setting['runs'] for start in r['starts'] if start['kill']]


def table(measured, totals):
    lines = [f'{"":12}  kills  ' + '  '.join((*PLACES, UNKNOWN)) + '  runs  differed']
    for name, setting in measured.items():
        lines.append(_row(name, summary({name: setting})))
    return '\n'.join([*lines, _row('all', totals)])


def _row(name, of):
    return (f'{name:12}  {of["kills"]:5}  ' + '  '.join(f'{n:{len(place)}}' for place, n in of['by place'].items()) +
            f'  {of["runs"]:4}  {of["runs that differed"]:8}')


def _save(measured, totals, seconds):
    record = {'command': f'python -m benchmarks.chaos --kills={flags.FLAGS.kills} --seed={flags.FLAGS.seed} '
                         f'--settings={",".join(flags.FLAGS.settings)}',
              'seed': flags.FLAGS.seed, 'totals': totals, 'settings': measured, 'seconds': round(seconds, 1),
              'machine': f'{os.cpu_count()} x {platform.machine()} CPU', 'python': platform.python_version(),
              'versions': {package: importlib.metadata.version(package)
                           for package in ('tensorflow', 'keras', 'numpy', 'py-spy')}}
    folder = pathlib.Path(flags.FLAGS.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'chaos.json').write_text(json.dumps(record, indent=1) + '\n')


def define():
    flags.DEFINE_integer('kills', len(PLAN), 'Kills over all settings.')
    flags.DEFINE_integer('seed', 0, 'Seed of the moments, the targets, the moves and the damage.')
    flags.DEFINE_list('settings', list(SETTINGS), f'Some of {", ".join(SETTINGS)}.')
    flags.DEFINE_string('results', str(RESULTS), 'Folder for chaos.json.')


if __name__ == '__main__':
    run(main, define)
