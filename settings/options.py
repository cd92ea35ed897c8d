"""Options: where and how a run happens. They never change its result (equalities E1, E2 and E7), but for the last bits
with `deterministic` off."""

import dataclasses

from settings.fields import Section, field
from settings.training import STEPS


@dataclasses.dataclass(frozen=True)
class Options(Section):
    workdir: str = field('', 'Folder of the run: checkpoints, logs, results, export. Without it, runs/RECIPE, with the '
                             'changed fields in the name.')
    strategy: str = field('auto', 'Devices that compute.', choices=('auto', 'cpu', 'gpu', 'multiworker', 'tpu'))
    virtual_devices: int = field(0, 'Number of logical devices into which this machine\'s device is split, one replica '
                                    'on each. 0 does not split.', least=0, most=1024)
    num_workers: int = field(0, 'Number of worker processes to start on this machine, which train together. 0 starts '
                                'none. For several hosts see strategies/launch/.', least=0, most=1024)
    runtime: str = field('auto', 'Runtime that drives the devices: tensorflow; or pjrt, which needs jax. auto is '
                                 'tensorflow, and pjrt where only jax can drive this machine\'s TPU.',
                         choices=('auto', 'tensorflow', 'pjrt'))
    tpu: str = field('', 'TPU to use: local, its name, or a grpc:// address; with --runtime=pjrt only local.')
    data_dir: str = field('', 'Folder of datasets: of your own in the layouts of docs/data.md, and of TensorFlow '
                              'Datasets. Without it, the environment variable CONGRUENT_DATA.')
    jit: str = field('auto', 'Compilation of the step with XLA. auto compiles where that was measured to be faster.',
                     choices=('auto', 'on', 'off'))
    deterministic: str = field('auto', 'Determinism of kernels and of the order of sums: equal runs, also those killed '
                                       'and resumed, have equal bits. auto is on. off permits faster kernels and gives '
                                       'up equal bits, as the log and results.json then say; a TPU has no off.',
                               choices=('auto', 'on', 'off'))
    log_every: int = field(100, 'Steps between records in metrics.jsonl, TensorBoard and a log.', least=1, most=STEPS)
    checkpoint_every: int = field(0, 'Steps between checkpoints. 0 means about once a minute.', least=0, most=STEPS)
    steps_per_call: int = field(0, 'Steps per call into the graph. 0 means about one second\'s worth.', least=0,
                                most=STEPS)
    max_minutes: float = field(0., 'Minutes of training after which the run saves itself and ends with exit code 75. '
                                   '0 means no limit.', least=0, most=10 ** 7)
    on_nan: str = field('skip', 'Reaction to a gradient that is not finite: skip the update, or rollback to the newest '
                                'checkpoint and resume from there without that batch.', choices=('skip', 'rollback'))
    nan_limit: int = field(25, 'Number of consecutive steps with a gradient that is not finite after which the run '
                               'ends. A float16 run begins with up to 15.', least=1, most=STEPS)
    export: bool = field(True, 'SavedModel in workdir/export/1 when training ends, in TensorFlow Serving\'s layout.')
