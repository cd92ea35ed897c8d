"""Trains one recipe: flags -> strategy -> data -> model -> loop -> evaluate -> export.

    python train.py --model=cnn
    python train.py --model=mlp --dataset=fashion_mnist --virtual_devices=2
    python train.py --recipe=path/to/mine.py
    python train.py --list

The same command again resumes where it stopped. In Python, `train.run(recipe, options)` returns the results.
Exit codes: 0 done, 1 the run failed, 2 a flag is wrong, 75 SIGTERM or --max_minutes (saved: start it again), 130 Ctrl-C
(saved).
"""

import os
import platform
import sys
import textwrap

import cli
from errors import UserError
from experiment import weights
from experiment.workdir import Workdir, default_workdir
from settings import Options, Recipe
from strategies import workers


def run(recipe, options=Options(), name='run', note=None):
    """Trains `recipe` in `options.workdir`, resumes an interrupted run, or returns a finished one's results.

    Args:
        note: a line for the head of the output.

    Returns:
        What is in results.json; docs/restarts.md describes each field.

    Raises:
        UserError: an argument cannot work. RunError: the run cannot go on. Stopped: it was stopped, and saved.
    """
    # 1. Whose folder is it, and is anything left to do?
    workdir = Workdir(options.workdir or default_workdir(name, {}))
    workdir.check(recipe)
    weights.check(recipe, workdir)
    if (results := workdir.results()) is not None:
        print(f'{workdir.path} holds this run, finished at step {results["steps"]:,}: nothing to do')
        return results

    if options.num_workers:
        raise UserError('`num_workers` starts processes of the command line, python train.py --num_workers=N. '
                        f'Received: num_workers={options.num_workers}')

    # 2. The devices. TensorFlow is imported only here, so that --help and a mistyped flag answer at once.
    with cli.quiet_tensorflow(options):
        from strategies import selection
        from training import randomness
    devices = selection.select(options.strategy, options.virtual_devices, options.tpu, options.runtime,
                               options.process)
    deterministic = randomness.make_deterministic(devices.kernels, options.deterministic)

    try:
        with selection.worker_errors(devices):
            return _train(recipe, options, name, note, workdir, devices, deterministic)
    finally:
        workdir.unlock()


def _train(recipe, options, name, note, workdir, devices, deterministic):
    """Stages 3 to 8, on the devices. Several workers do the same in step; only the chief touches the run's folder."""
    from experiment import export, parts, shown

    # 3. The data, and what its outputs mean.
    recipe = weights.described(workdir.resumed_recipe(recipe), workdir).resolved(devices.hardware, devices.bfloat16)
    if devices.workers > 1:      # only the chief's folder counts; the others may see an older state of it, or none
        recipe = Recipe.from_json(devices.from_chief(recipe.to_json().encode()).decode())
    dataset, task = parts.open_data(recipe, options.data_dir, weights.tokenizer(recipe, workdir))
    batches = parts.Batches(recipe, dataset, task, devices.replicas)

    # 4. The model under the strategy's scope, at the newest checkpoint if there is one.
    trainer, jit_reason = parts.make_trainer(
        recipe, batches.rows, task, devices, workdir, options.jit, deterministic)
    trainer.count_flops(batches.spec)
    found = weights.find(trainer, recipe, workdir) if devices.is_chief else None
    if devices.is_chief:
        workdir.lock()                 # only now: what is wrong so far leaves no folder behind
    with parts.data_errors(dataset):
        started = weights.start(trainer, recipe, found, batches)
    if devices.is_chief:
        workdir.claim(recipe, task.tokenizer_files)
        _print_head(name, note, workdir, recipe, devices, dataset, batches, trainer, jit_reason, started)

    with parts.data_errors(dataset):
        if devices.is_chief:
            shown.start(workdir, recipe, task, batches, trainer.step)

        # 5. The loop.
        trainer.train(batches.training, trainer.evaluator(*batches.evaluation('validation')), batches.examples, options)

        # 6. Exact evaluation.
        values = trainer.evaluator(*batches.evaluation('test'))()
        if devices.is_chief:
            shown.end(workdir, recipe, trainer, dataset.test, values)

    # 7. The export, rebuilt without the strategy, and checked.
    results = _results(recipe, devices, dataset, trainer, values)
    if devices.is_chief:
        difference = export.export_run(workdir, recipe, trainer, dataset) if options.export else None
        results |= {'export_dir': str(workdir.export) if options.export else None, 'export_max_abs_diff': difference}

        # 8. The results.
        workdir.finish(results)
        _print_end(workdir, results)
    devices.wait_for_all()
    return results


def _print_head(name, note, workdir, recipe, devices, dataset, batches, trainer, jit, started):
    print(f'recipe    {name}')
    for section, fields in recipe.as_dict().items():
        shown = ', '.join(f'{field}={value}' for field, value in fields.items())
        print(textwrap.fill(f'{section:<10}{shown}', 110, initial_indent=' ' * 10, subsequent_indent=' ' * 20))
    if note:
        print(f'note      {note}')
    print(f'devices   {devices}')
    print(f'data      {dataset}' + (f', {batches.rows}' if getattr(recipe.data, 'packing', False) else ''))
    batch, precision = recipe.training.batch_size, recipe.training.precision
    print(f'model     {recipe.model.kind}, {trainer.model.count_params():,} parameters, {precision}; {jit}')
    print(f'step      {trainer.flops_per_step / 1e9:,.3f} GFLOP; global batch {batch} = '
          f'{devices.replicas} x {batch // devices.replicas}')
    if not trainer.deterministic:
        print('bits      steps of this run are not deterministic (--deterministic=off): equal runs may end with other '
              'bits')
    if started:
        print(f'weights   {started}')
    print(f'workdir   {workdir.path}, ' + (f'resuming at step {trainer.step:,}' if trainer.step else 'a new run') +
          f' of {trainer.total_steps:,}', flush=True)


def _results(recipe, devices, dataset, trainer, values):
    import keras
    import numpy
    import tensorflow as tf
    steps, batch = trainer.total_steps, recipe.training.batch_size
    return {'recipe': recipe.as_dict(), 'model': recipe.model.kind, 'dataset': dataset.name,
            'strategy': devices.name, 'runtime': devices.runtime, 'replicas': devices.replicas,
            'workers': devices.workers,
            'global_batch_size': batch, 'steps': steps, 'examples_seen': steps * batch,
            'eval': values, 'best': trainer.best, 'weights_sha256': trainer.state.sha256(),
            'train_seconds': trainer.train_seconds, 'compile_seconds': trainer.compile_seconds,
            'examples_per_second': trainer.examples_per_second, 'flops_per_step': trainer.flops_per_step,
            'fingerprint': trainer.program_fingerprint,
            'deterministic': trainer.deterministic,
            'tensor_float_32': (devices.hardware == 'gpu'
                                and tf.config.experimental.tensor_float_32_execution_enabled()),
            'versions': {'python': platform.python_version(), 'tensorflow': tf.__version__,
                         'keras': keras.__version__, 'numpy': numpy.__version__, **devices.versions}}


def _print_end(workdir, results):
    for name, value in results['eval'].items():
        shown = f'{value:.4f}' if isinstance(value, float) else f'{value:,}' if isinstance(value, int) else value
        print(f'Test {name.replace("_", " ")}: {shown}')
    print(f'results   {workdir.path / "results.json"}')
    if results['export_dir']:
        print(f'export    {results["export_dir"]} (differs from the trained model by at most '
              f'{results["export_max_abs_diff"]:.1e})')
    print(f'curves    tensorboard --logdir {workdir.path / "tensorboard"}', flush=True)


def main(chosen):
    options = cli.given(Options)
    options['workdir'] = options.get('workdir') or default_workdir(chosen.name, chosen.changes)
    recipe, options = chosen.recipe, Options(**options)
    if options.num_workers and Workdir(options.workdir).results() is None:
        return _launch(recipe, options)
    run(recipe, options, chosen.name, chosen.inherited)


def _launch(recipe, options):
    """This command again as `num_workers` processes, which form a cluster. Returns the exit code."""
    if options.strategy not in (('auto', 'cpu') if options.runtime == 'pjrt' else ('auto', 'multiworker')):
        needed = 'strategy cpu, with runtime pjrt' if options.runtime == 'pjrt' else 'strategy multiworker'
        raise UserError(f'`num_workers` needs {needed}. Received: num_workers={options.num_workers}, '
                        f'strategy={options.strategy}')
    if 'TF_CONFIG' in os.environ:
        raise UserError('`num_workers` starts a cluster of its own, but TF_CONFIG names one. '
                        f'Received: num_workers={options.num_workers}, TF_CONFIG={os.environ["TF_CONFIG"]!r}')
    Workdir(options.workdir).check(recipe)        # a mistake here is one line, and not one from each worker
    strategy = 'cpu' if options.runtime == 'pjrt' else 'multiworker'
    return workers.launch([sys.executable, *sys.argv, '--num_workers=0', f'--strategy={strategy}'], options.num_workers)


if __name__ == '__main__':
    cli.run(main, lambda: cli.define_flags(Options), recipe=True)
