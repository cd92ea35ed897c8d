"""Options: where and how a run happens. They never change its result (equalities E1, E2 and E7), but for the last bits
with `deterministic` off."""

import dataclasses
import re

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
    coordinator_address: str = field('', 'Address, host:port, of the first of several processes that jax joins to one '
                                         'run (--runtime=pjrt); the same in all of them. TF_CONFIG, Slurm, Open MPI '
                                         'and TPU slices need none.')
    num_processes: int = field(0, 'Number of processes that --coordinator_address joins. 0 joins none.', least=0,
                               most=100_000)
    process_id: int = field(-1, 'Number of this process among those that --coordinator_address joins, from 0. -1 joins '
                                'none.', least=-1, most=100_000)
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

    @property
    def process(self):
        """(address of process 0, number of processes, number of this one) if flags say so, or None."""
        return (self.coordinator_address, self.num_processes, self.process_id) if self.coordinator_address else None

    def rules(self):
        address = self.coordinator_address
        together = 'is one of three, coordinator_address, num_processes and process_id, that are given together'
        return [('coordinator_address', together, not address or self.num_processes and self.process_id >= 0),
                ('num_processes', together, address or not self.num_processes),
                ('process_id', together, address or self.process_id == -1),
                ('coordinator_address', 'must be host:port', not address or re.fullmatch(r'[^\s/]+:\d{1,5}', address)),
                ('process_id', f'must be below num_processes ({self.num_processes})',
                 not address or self.process_id < self.num_processes),
                ('coordinator_address', 'is of runtime pjrt', not address or self.runtime != 'tensorflow'),
                ('num_workers', 'starts the processes of a cluster, and coordinator_address names one of another',
                 not address or not self.num_workers)]
