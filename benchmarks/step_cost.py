"""What the loop costs beyond the bare step: data, all-reduce, norm, finite check, totals, logging.

    python -m benchmarks.step_cost --model=cnn

The bare step is what a reader would write first: forward, backward and Keras's `apply_gradients` in one tf.function,
fed with one batch that stays in memory, with XLA where our loop has it. Ours is the whole loop of train.py, pipeline
included. They run in turns in one process; the ratio is of the medians over all turns.
"""

import time

from absl import flags

import cli

TURN = 10     # steps a turn


def bare_step(recipe, task, jit):
    """A new model and Keras optimizer in a tf.function of (x, y)."""
    import keras
    import tensorflow as tf

    from experiment import parts
    model = parts.build_model(recipe, task)
    optimizer = keras.optimizers.get({'class_name': recipe.training.optimizer,
                                      'config': {'learning_rate': recipe.training.learning_rate}})
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=jit)
    def bare(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(
                y, model(x, training=True), from_logits=True))
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
        return loss
    return bare


def main():
    with cli.quiet_tensorflow():
        from benchmarks.runner import recipe_loop
    from benchmarks.report import save
    runner, recipe, task, dataset_fn, jit = recipe_loop(flags.FLAGS.model)
    bare = bare_step(recipe, task, jit)
    x, y, _ = next(iter(dataset_fn()))

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
    save(f'step_cost_{recipe.model.kind}', {'milliseconds_a_step': times, 'jit': jit}, ratio=('loop', 'bare'))


def define():
    flags.DEFINE_string('model', 'cnn', 'Model whose default recipe is measured: mlp, cnn or lstm.')
    flags.DEFINE_integer('turns', 30, f'Turns of {TURN} steps each.')


if __name__ == '__main__':
    cli.run(main, define)
