"""Learning rates as functions of the number of updates."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package='congruent')
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Grows linearly from 0 to `peak` in `warmup_steps`, then follows `decay`.

    decay 'constant'      peak
          'cosine'        peak * (1 + cos(pi * t)) / 2, t from 0 at the end of the warm-up to 1 at `total_steps`
                          (arXiv:1608.03983, equation 5, without restarts)
          'linear'        peak * (1 - t), t as above
          'inverse_sqrt'  peak * sqrt(warmup_steps / step): arXiv:1706.03762, equation 3, whose peak is
                          d_model^-0.5 * warmup_steps^-0.5
    Step 0 of a warm-up already moves: the rate of update n is that of n + 1, as in the paper.
    """

    def __init__(self, peak, warmup_steps=0, decay='constant', total_steps=0):
        super().__init__()
        if decay not in ('constant', 'cosine', 'linear', 'inverse_sqrt'):
            raise ValueError(f'`decay` must be constant, cosine, linear or inverse_sqrt. Received: decay={decay!r}')
        if decay in ('cosine', 'linear') and total_steps <= warmup_steps:
            raise ValueError(f'`total_steps` must exceed `warmup_steps` for a {decay} decay. '
                             f'Received: total_steps={total_steps}, warmup_steps={warmup_steps}')
        self.peak, self.warmup_steps, self.decay, self.total_steps = peak, warmup_steps, decay, total_steps

    def __call__(self, step):
        step = ops.cast(step, 'float32') + 1.
        warm = ops.cast(max(self.warmup_steps, 1), 'float32')
        rising = ops.minimum(step / warm, 1.) if self.warmup_steps else 1.
        return self.peak * rising * self._decayed(step, warm)

    def _decayed(self, step, warm):
        if self.decay in ('cosine', 'linear'):
            t = ops.clip((step - self.warmup_steps) / (self.total_steps - self.warmup_steps), 0., 1.)
            return 1. - t if self.decay == 'linear' else (1. + ops.cos(3.141592653589793 * t)) / 2.
        if self.decay == 'inverse_sqrt':
            return ops.sqrt(warm / ops.maximum(step, warm))
        return 1.

    def get_config(self):
        return {'peak': self.peak, 'warmup_steps': self.warmup_steps, 'decay': self.decay,
                'total_steps': self.total_steps}
