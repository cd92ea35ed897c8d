"""Keeps the results and logs of finished runs beside the benchmarks, where the README's table quotes them.

    python -m benchmarks.collect runs/cnn_digits runs/mlp_digits
"""

import json
import pathlib
import shutil

import cli
from benchmarks.report import RESULTS
from errors import UserError
from workdir import Workdir


def main(folders):
    for folder in map(pathlib.Path, folders):
        results = Workdir(folder).results()
        if results is None:
            raise UserError(f'{folder} holds no finished run')
        kept = RESULTS / 'runs' / folder.name
        kept.mkdir(parents=True, exist_ok=True)
        results['export_dir'] = None        # a path of the machine that ran it
        (kept / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
        shutil.copy(folder / 'metrics.jsonl', kept)
        shown = {name: round(value, 4) for name, value in results['eval'].items()}
        print(f'{folder.name}: {shown}, {results["train_seconds"] / 60:.1f} minutes of training')


if __name__ == '__main__':
    cli.run(main, lambda: None, arguments=True)
