"""Preflight reports (experiment/preflight.py) for people: a table of one, a CSV file and a picture of many."""

import csv
import pathlib
import textwrap

from errors import UserError

GIB, WIDTH = 2 ** 30, 110
COLUMNS = ('topology', 'chips', 'per_chip_batch', 'global_batch_size', 'compiles', 'memory_total_bytes',
           'memory_limit_bytes', 'flops_per_step', 'bytes_per_step', 'all_reduce_bytes', 'bound',
           'predicted_step_seconds', 'predicted_examples_per_second', 'predicted_mfu', 'hours', 'chip_hours', 'reason')


def table(report):
    """The lines of a report."""
    size = f' {report["size"]}' if report['size'] else ''
    lines = [('model', f'{report["model"]}{size} on {report["dataset"]}, {report["parameters"]:,} parameters, '
                       f'{report["precision"]}'),
             ('topology', f'{report["topology"]}: {report["chips"]} x TPU {report["chip"]}'),
             ('batch', f'{report["global_batch_size"]:,} = {report["chips"]} x {report["per_chip_batch"]:,}')]
    if not report['compiles']:
        lines += [('compiles', f'no: {report["reason"]}')]
        if 'largest_per_chip_batch' in report:
            lines += [('fits', f'{report["largest_per_chip_batch"]:,} examples per chip is the most that does')]
    else:
        lines += _costs(report)
    return '\n'.join(line for name, text in lines for line in textwrap.wrap(
        f'{name:<10}{text}', WIDTH, subsequent_indent=' ' * 10, break_long_words=False))


def _costs(report):
    memory, limit = report['memory_bytes'], report['memory_limit_bytes']
    kinds = ', '.join(f'{kind} {_size(value)}' for kind, value in memory.items() if kind != 'total')
    lines = [('program', f'{report["fingerprint"]}, at most {report["steps_per_launch"]} steps per launch'),
             ('compiles', f'yes: training in {report["compile_seconds"]:.0f} s, evaluation in '
                          f'{report["evaluation"]["compile_seconds"]:.0f} s')]
    if 'largest_per_chip_batch' in report:
        lines += [('fits', f'{report["largest_per_chip_batch"]:,} examples per chip is the most that does')]
    lines += [
        ('memory', f'{_size(memory["total"])} per chip of {_size(limit)} ({memory["total"] / limit:.1%}): {kinds}; '
                   f'evaluation {_size(report["evaluation"]["memory_bytes"])}'),
        ('step', f'{report["flops_per_step"] / 1e9:,.2f} GFLOP in all; a chip moves {_size(report["bytes_per_step"])} '
                 f'and all-reduces {_size(report["all_reduce_bytes"])} in {report["all_reduces"]}'),
        ('roofline', ', '.join(f'{kind} {report[f"{kind}_seconds"] * 1e6:,.1f} us'
                               for kind in ('compute', 'memory', 'interconnect')) + f': bound by {report["bound"]}'),
        ('predicted', f'at best {report["predicted_step_seconds"] * 1e6:,.1f} us per step, '
                      f'{report["predicted_examples_per_second"]:,.0f} examples/s, MFU {report["predicted_mfu"]:.1%}'),
        ('run', f'{report["steps"]:,} steps: at best {report["hours"]:.3g} hours, {report["chip_hours"]:.3g} '
                'chip-hours')]
    lines += [('uncounted', f'the loop {name}, counted once') for name in report['uncounted_loops']]
    lines += [('lint', f'{a["layer"]}: {a["message"]}' if a['layer'] else a['message']) for a in report['lint']]
    return lines + [('assuming', text) for text in report['assumptions']]


def _size(count):
    for unit, size in (('GiB', GIB), ('MiB', 2 ** 20), ('KiB', 2 ** 10)):
        if count >= size:
            return f'{count / size:,.2f} {unit}'
    return f'{count:,} B'


def write_sweep(reports, folder):
    """Writes sweep.csv and sweep.png. Returns their paths."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f'`sweep` draws with matplotlib: pip install -e ".[tpu]". Received: {error}') from None
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / 'sweep.csv', folder / 'sweep.png'
    with open(files[0], 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction='ignore')
        writer.writeheader()
        writer.writerows({**r, 'memory_total_bytes': r.get('memory_bytes', {}).get('total')} for r in reports)
    figure = Figure(figsize=(10, 4), layout='constrained')
    for axes, (column, label) in zip(figure.subplots(1, 2), (
            ('predicted_examples_per_second', 'examples/s, at best'), ('predicted_mfu', 'MFU, at best'))):
        _draw(axes, reports, column)
        axes.set(xlabel='examples per chip', ylabel=label, xscale='log', yscale='log')
    axes.legend(title=reports[0]['model'])
    figure.savefig(files[1], dpi=120)
    return files


def _draw(axes, reports, column):
    """A line for each topology; what does not compile or fit is not on it."""
    for name in dict.fromkeys(r['topology'] for r in reports):
        points = sorted((r['per_chip_batch'], r[column]) for r in reports if r['topology'] == name and r['compiles'])
        axes.plot([x for x, _ in points], [y for _, y in points], marker='o', label=name)
