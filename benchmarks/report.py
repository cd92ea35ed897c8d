"""How benchmarks report: medians and a ratio on the screen, raw numbers with versions in benchmarks/results/."""

import importlib.metadata
import json
import os
import pathlib
import platform
import re
import statistics
import sys

RESULTS = pathlib.Path(__file__).parent / 'results'


def save(name, measured, ratio):
    """Prints the medians of the first table in `measured` and the ratio of two of them; writes NAME.json."""
    title, table = next(iter(measured.items()))
    medians = {key: statistics.median(values) for key, values in table.items()}
    spread = {key: statistics.stdev(values) if len(values) > 1 else 0. for key, values in table.items()}
    for key, value in medians.items():
        print(f'{key:<12} {value:12,.3f} +- {spread[key]:,.3f} {title.replace("_", " ")}')
    over = medians[ratio[0]] / medians[ratio[1]]
    print(f'{ratio[0]} / {ratio[1]} = {over:.3f}')
    write(name, {'ratio': {f'{ratio[0]} / {ratio[1]}': round(over, 4)}, 'medians': medians, **measured})
    return over


def write(name, measured):
    """Writes NAME.json: the command of this process, what it measured, the machine and the versions."""
    RESULTS.mkdir(exist_ok=True)
    # Without the folders of this machine.
    arguments = [re.sub(r'(^|=)/\S*/', r'\1', argument) for argument in sys.argv[1:]]
    record = {'command': 'python -m benchmarks.' + ' '.join([pathlib.Path(sys.argv[0]).stem, *arguments]),
              **measured,
              'machine': f'{os.cpu_count()} x {platform.machine()} CPU', 'python': platform.python_version(),
              'versions': {package: importlib.metadata.version(package)
                           for package in ('tensorflow', 'keras', 'numpy')}}
    (RESULTS / f'{name}.json').write_text(json.dumps(record, indent=1) + '\n')


def programs_table(record):
    """The table of docs/speed.md, from benchmarks/results/programs_h200.json."""
    titles = ('Transformer', 'parameters', 'ours, ms per step', 'MFU', 'PyTorch compiled, ms', 'eager, ms',
              'speed over compiled', 'over eager')
    rows = [titles, len(titles) * ('---',)]
    for size, row in record['speed'].items():
        ours, eager, compiled = (1000 * side['step_seconds'] for side in (row['ours'], *(
            row['torch'][kind] for kind in ('eager', 'compiled'))))
        rows.append((size, f'{row["ours"]["parameters"] / 1e6:.1f} M', f'{ours:.1f}', f'{row["ours"]["mfu"]:.1%}',
                     f'{compiled:.1f}', f'{eager:.1f}', f'{compiled / ours:.2f}', f'{eager / ours:.2f}'))
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)
