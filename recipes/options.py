"""Options: where and how a run happens. They never change its result (equalities E1, E2 and E7)."""

import dataclasses

from errors import UserError
from recipes.recipe import check_type, field


@dataclasses.dataclass(frozen=True)
class Options:
    workdir: str = field('', 'Folder of the run: checkpoints, logs, results, export. Default: runs/RECIPE, with the '
                             'overridden fields in the name.')
    strategy: str = field('auto', 'Devices: auto, cpu, gpu, multiworker or tpu.')
    virtual_devices: int = field(0, 'Split this machine\'s device into N logical ones, to run N replicas; 0 is off.')
    num_workers: int = field(0, 'Start N worker processes on this machine, which train together; 0 is off. Other '
                                'hosts: see strategies/launch/.')
    tpu: str = field('', 'TPU to use: local, its name, or a grpc:// address.')
    data_dir: str = field('', 'Folder of datasets, for TensorFlow Datasets and files/...')
    jit: str = field('auto', 'Compile the step with XLA: auto (where it was measured to be faster), on or off.')
    log_every: int = field(100, 'Steps between records in metrics.jsonl, TensorBoard and a log.')
    checkpoint_every: int = field(0, 'Steps between checkpoints; 0 is about once a minute.')
    steps_per_call: int = field(0, 'Steps in one call into the graph; 0 is about a second\'s worth.')
    max_minutes: float = field(0., 'Minutes of training after which the run saves itself and ends with exit code 75; '
                                   '0 is no limit.')
    on_nan: str = field('skip', 'After a step whose gradient is not finite: skip its update, or rollback to the '
                                'newest checkpoint and go on from there without that batch.')
    nan_limit: int = field(25, 'End the run after so many such steps one after the other. A float16 run begins with '
                               'up to 15.')
    export: bool = field(True, 'Write workdir/export/1, a SavedModel in TensorFlow Serving\'s layout.')

    def __post_init__(self):
        for f in dataclasses.fields(self):
            check_type(f, getattr(self, f.name))
        for name in ('checkpoint_every', 'steps_per_call', 'num_workers', 'max_minutes'):
            if getattr(self, name) < 0:
                raise UserError(f'`{name}` must not be negative. Received: {name}={getattr(self, name)}')
        for name in ('log_every', 'nan_limit'):
            if getattr(self, name) < 1:
                raise UserError(f'`{name}` must be at least 1. Received: {name}={getattr(self, name)}')
        for name, known in {'jit': ('auto', 'on', 'off'), 'on_nan': ('skip', 'rollback')}.items():
            if getattr(self, name) not in known:
                raise UserError(f'`{name}` must be one of {", ".join(known)}. Received: {name}={getattr(self, name)!r}')
