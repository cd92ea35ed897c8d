"""What the loop costs beyond the bare step: data, all-reduce, norm, finite check, totals, logging.

    python -m benchmarks.step_cost --model=cnn

The bare step is what a reader would write first: forward, backward and Keras's `apply_gradients` in one tf.function,
fed with one batch that stays in memory. Ours is the whole loop of train.py, pipeline included. They run in turns in
one process; the ratio is of the medians over all turns.
"""

import time

from absl import flags

import frontdoor

TURN = 10     # steps a turn


def main(_):
    with frontdoor.quiet_tensorflow():
        import keras
        import tensorflow as tf
    import assembly
    import recipes
    import strategies
    from benchmarks.report import save
    from data import pipeline
    from training.jit import use_jit
    from training.loop import StepRunner
    from training.trainer import Trainer

    _, recipe = recipes.find(model=flags.FLAGS.model)
    devices = strategies.select('cpu')
    assembly.make_deterministic()
    dataset, task = assembly.open_data(recipe)
    jit, _ = use_jit('auto', recipe.model, 'cpu')
    trainer = Trainer(recipe, devices, task, lambda: assembly.build_model(recipe, task), total_steps=10 ** 6,
                      workdir='unused', jit=jit)
    dataset_fn = pipeline.training_slices(dataset.train, task.features, batch_size=recipe.batch_size, seed=0,
                                          transform=recipe.augment)
    runner = StepRunner(devices.strategy, trainer._step, dataset_fn, 0)

    model = assembly.build_model(recipe, task)
    optimizer = keras.optimizers.get({'class_name': recipe.optimizer,
                                      'config': {'learning_rate': recipe.learning_rate}})
    optimizer.build(model.trainable_variables)
    x, y, weights = next(iter(dataset_fn()))

    @tf.function(jit_compile=jit)
    def bare(x, y):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=True)) \
                if recipe.task == 'classification' else task.loss(y, outputs, weights)[0]
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
        return loss

    def bare_turn():
        for _ in range(TURN):
            loss = bare(x, y)
        return float(loss)

    times = {'bare': [], 'loop': []}
    for turn in range(flags.FLAGS.turns + 2):
        for name, function in (('bare', bare_turn), ('loop', lambda: runner(TURN))):
            started = time.perf_counter()
            function()
            if turn > 1:     # the first two turns compile and warm up
                times[name].append((time.perf_counter() - started) / TURN * 1e3)
    save(f'step_cost_{recipe.model}', {'milliseconds_a_step': times, 'jit': jit}, ratio=('loop', 'bare'))


def define():
    flags.DEFINE_string('model', 'cnn', 'Model whose default recipe is measured.')
    flags.DEFINE_integer('turns', 30, f'Turns of {TURN} steps each.')


if __name__ == '__main__':
    frontdoor.run(main, define)
