"""Trains one recipe: flags -> strategy -> data -> model -> loop -> evaluate -> export.

    python train.py --model=cnn
    python train.py --model=mlp --dataset=fashion_mnist --virtual_devices=2

The same command again goes on where it stopped. In Python, `train.run(recipe, options)` returns the results.
Exit codes: 0 done, 1 the run failed, 2 a flag is wrong, 75 SIGTERM (saved: start it again), 130 Ctrl-C (saved).
"""

import json
import os
import platform
import sys

from absl import flags

import frontdoor
import recipes
from errors import UserError
from recipes import Options, Recipe
from strategies import workers
from workdir import Workdir, default_workdir


def run(recipe, options=Options(), name='run'):
    """Trains `recipe` in `options.workdir`, goes on with an interrupted run, or returns a finished one's results.

    Returns:
        What is in results.json; README describes each field.

    Raises:
        UserError: an argument cannot work. RunError: the run cannot go on. Stopped: it was stopped, and saved.
    """
    # 1. Whose folder is it, and is anything left to do?
    workdir = Workdir(options.workdir or default_workdir(name, {}))
    workdir.check(recipe)
    if (results := workdir.results()) is not None:
        print(f'{workdir.path} holds this run, finished at step {results["steps"]:,}: nothing to do')
        return results

    if options.num_workers:
        raise UserError('`num_workers` starts processes of the command line, python train.py --num_workers=N. '
                        f'Received: num_workers={options.num_workers}')

    # 2. The devices. TensorFlow is imported only here, so that --help and a mistyped flag answer at once.
    with frontdoor.quiet_tensorflow():
        import assembly
        from strategies import selection
    devices = selection.select(options.strategy, options.virtual_devices, options.tpu)
    assembly.make_deterministic(devices.hardware)

    with selection.worker_errors(devices):
        return _train(recipe, options, name, workdir, devices)


def _train(recipe, options, name, workdir, devices):
    """Stages 3 to 8, on the devices. Several workers do the same in step; only the chief touches the run's folder."""
    import assembly
    # 3. The data, and what its outputs mean.
    recipe = workdir.resumed_recipe(recipe)
    dataset, task = assembly.open_data(recipe, options.data_dir, workdir.tokenizer())
    batches = assembly.Batches(recipe, dataset, task, devices.replicas)

    # 4. The model under the strategy's scope, at the newest checkpoint if there is one.
    trainer, jit_reason = assembly.make_trainer(recipe, dataset, task, devices, workdir, options.jit)
    recipe = trainer.recipe            # without `auto`
    trainer.restore(dataset.fingerprint)
    trainer.count_flops(batches.spec)
    if devices.is_chief:
        # Only now: what is wrong so far leaves no folder behind.
        workdir.claim(recipe, getattr(dataset.features, 'tokenizer_model', None))
        _print_head(name, workdir, recipe, devices, dataset, trainer, jit_reason)

    with assembly.data_errors(dataset):
        # 5. The loop.
        trainer.train(batches.training, trainer.evaluator(*batches.evaluation('validation')), batches.examples, options)

        # 6. Exact evaluation.
        values = trainer.evaluator(*batches.evaluation('test'))()

    # 7. The export, rebuilt without the strategy, and checked.
    results = _results(recipe, devices, dataset, trainer, values)
    if devices.is_chief:
        difference = assembly.export_run(workdir, trainer, dataset) if options.export else None
        results |= {'export_dir': str(workdir.export) if options.export else None, 'export_max_abs_diff': difference}

        # 8. The results.
        workdir.finish(results)
        _print_end(workdir, results)
    devices.wait_for_all()
    return results


def _print_head(name, workdir, recipe, devices, dataset, trainer, jit):
    print(f'recipe    {name}\n{_indent(recipe.to_json())}')
    print(f'devices   {devices}')
    print(f'data      {dataset}')
    print(f'model     {recipe.model}, {trainer.model.count_params():,} parameters, {recipe.precision}; {jit}')
    print(f'step      {trainer.flops_per_step / 1e9:,.3f} GFLOP; global batch {recipe.batch_size} = '
          f'{devices.replicas} x {recipe.batch_size // devices.replicas}')
    print(f'workdir   {workdir.path}, ' + (f'resuming at step {trainer.step:,}' if trainer.step else 'a new run') +
          f' of {trainer.total_steps:,}', flush=True)


def _indent(text):
    return '\n'.join(f'          {line.strip()}' for line in text.strip().strip('{}').strip().splitlines())


def _results(recipe, devices, dataset, trainer, values):
    import keras
    import numpy
    import tensorflow as tf
    steps = trainer.total_steps
    return {'recipe': json.loads(recipe.to_json()), 'model': recipe.model, 'dataset': dataset.name,
            'strategy': devices.name, 'replicas': devices.replicas, 'workers': devices.workers,
            'global_batch_size': recipe.batch_size, 'steps': steps, 'examples_seen': steps * recipe.batch_size,
            'eval': values, 'best': trainer.best, 'weights_sha256': trainer.state.sha256(),
            'train_seconds': trainer.train_seconds, 'compile_seconds': trainer.compile_seconds,
            'examples_per_second': trainer.examples_per_second, 'flops_per_step': trainer.flops_per_step,
            'versions': {'python': platform.python_version(), 'tensorflow': tf.__version__,
                         'keras': keras.__version__, 'numpy': numpy.__version__}}


def _print_end(workdir, results):
    for name, value in results['eval'].items():
        shown = f'{value:.4f}' if isinstance(value, float) else f'{value:,}' if isinstance(value, int) else value
        print(f'Test {name.replace("_", " ")}: {shown}')
    print(f'results   {workdir.path / "results.json"}')
    if results['export_dir']:
        print(f'export    {results["export_dir"]} (differs from the trained model by at most '
              f'{results["export_max_abs_diff"]:.1e})')
    print(f'curves    tensorboard --logdir {workdir.path / "tensorboard"}', flush=True)


def main(arguments):
    if arguments:
        raise UserError(f'`train.py` takes flags only. Received: {" ".join(arguments)}')
    overrides = frontdoor.given(Recipe)
    name, recipe = recipes.find(flags.FLAGS.recipe, overrides.get('model'), overrides.get('dataset'))
    overrides = {k: v for k, v in overrides.items() if getattr(recipe, k) != v}
    options = frontdoor.given(Options)
    options['workdir'] = options.get('workdir') or default_workdir(name, overrides)
    recipe, options = recipe.replace(**overrides), Options(**options)
    if options.num_workers and Workdir(options.workdir).results() is None:
        return _launch(recipe, options)
    run(recipe, options, name)


def _launch(recipe, options):
    """This command again as `num_workers` processes, which form a cluster. Returns the exit code."""
    if options.strategy not in ('auto', 'multiworker'):
        raise UserError(f'`num_workers` needs strategy multiworker. Received: num_workers={options.num_workers}, '
                        f'strategy={options.strategy}')
    if 'TF_CONFIG' in os.environ:
        raise UserError('`num_workers` starts a cluster of its own, but TF_CONFIG names one. '
                        f'Received: num_workers={options.num_workers}, TF_CONFIG={os.environ["TF_CONFIG"]!r}')
    Workdir(options.workdir).check(recipe)        # a mistake here is one line, and not one from each worker
    return workers.launch([sys.executable, *sys.argv, '--num_workers=0', '--strategy=multiworker'],
                          options.num_workers)


def define_flags():
    flags.DEFINE_string('recipe', None, f'Recipe to train: {", ".join(recipes.RECIPES)}. Each of its fields is a flag.')
    frontdoor.define_flags(Recipe, inherit=True)
    frontdoor.define_flags(Options)


if __name__ == '__main__':
    frontdoor.run(main, define_flags)
