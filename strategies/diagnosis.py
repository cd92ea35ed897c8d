"""What is wrong with a machine, and the one command that fixes it: pure functions over the facts of a Machine.

doctor.py collects the facts and prints the findings; tpu.py gives the same verdicts as errors; jax_diagnosis.py adds
those on jax. CAUSES is the only place
where what TensorFlow says is translated.
"""

import dataclasses
import json
import re

FLAVOURS = ('tensorflow', 'tensorflow-cpu', 'tensorflow-tpu', 'tf-nightly')   # all are the one module `tensorflow`
NEEDED = ('absl-py', 'keras', 'numpy', 'sacrebleu', 'safetensors', 'scikit-learn', 'tensorboard', 'tqdm')
# Which libtpu the wheel imports with, traces TPUStrategy with and trains on the CPU with: checked without a TPU.
TESTED_LIBTPU = {'2.20.0': '0.0.14', '2.19.1': '0.0.10'}
# TensorFlow drives v5e only through PJRT, says https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm,
# and keras-rs's example so drives v5p and v6e; older chips are driven through StreamExecutor, without more ado.
PJRT_CHIPS = ('v5e', 'v5p', 'v6e', 'tpu7x')

# All wheels unpack into one folder, so that removing one of two breaks the other.
UNINSTALL = f'pip uninstall -y {" ".join(FLAVOURS)}'
INSTALL_PJRT = f'{UNINSTALL} && pip install -r requirements-tpu-2.19.txt'
INSTALL_GPU = f'{UNINSTALL} && pip install "tensorflow[and-cuda]==2.21.*"'
INSTALL_CPU = f'{UNINSTALL} && pip install --editable .'
CREATE_TPU = ('gcloud compute tpus tpu-vm create my-tpu --zone=us-central1-a --accelerator-type=v5litepod-8 '
              '--version=v2-alpha-tpuv5-lite')
END_OTHERS = 'end the processes that this lists: sudo fuser -v /dev/accel* /dev/vfio/*'


@dataclasses.dataclass(frozen=True)
class Machine:
    """What there is to see without TensorFlow, and what a child process that imported TensorFlow said."""
    packages: dict                  # {name as on PyPI: version}
    environment: dict
    tpu_files: tuple = ()           # of /dev/accel* and /dev/vfio/*
    tpu_chips: tuple = ()           # generation of each chip on the PCI bus, like v5e
    nvidia_gpus: int = 0            # on the PCI bus, or /dev/nvidia[0-9]*
    libcuda: bool = False           # the NVIDIA driver's library
    libtpu: str = ''                # file of the libtpu wheel
    google: bool = False            # the board says Google Compute Engine
    said: dict = dataclasses.field(default_factory=dict)      # the child: version, cuda, cpus, gpus, tpus
    output: str = ''                # the child's stderr
    exit_code: int = None           # the child's; None: none was started
    said_by_jax: dict = None        # another child: devices and kind, or error; None: none was started

    @property
    def has_tpu(self):
        return bool(self.tpu_files or self.tpu_chips)

    @property
    def generation(self):
        """The generation of its TPU chips; '' if unknown."""
        named = re.match(r'v5litepod|v5p|v6e|tpu7x|v\d', self.environment.get('TPU_ACCELERATOR_TYPE', ''))
        return self.tpu_chips[0] if self.tpu_chips else (named[0].replace('litepod', 'e') if named else '')

    @property
    def wheels(self):
        return [name for name in FLAVOURS if name in self.packages]


@dataclasses.dataclass(frozen=True)
class Finding:
    """`problem` is empty where all is well."""
    subject: str
    fact: str = ''
    problem: str = ''
    fix: str = ''

    def __str__(self):
        return f'{self.problem}. To fix it: {self.fix}'


# (what TensorFlow or libtpu says, its cause, what fixes it); the first that matches counts.
CAUSES = [(re.compile(pattern), problem, fix) for pattern, problem, fix in (
    (r"No module named 'tensorflow'",
     'TensorFlow is not installed (Colab\'s TPU runtimes have none since March 2025)', '{install}'),
    (r'DoWork not available|not available in this library',
     'libtpu {installed} does not fit tensorflow-tpu {wheel}, whose import aborts', 'pip install "libtpu=={fits}"'),
    (r'libtpu multi-process lockfile',
     'another process holds the TPU, or one that was killed left its lock behind',
     f'{END_OTHERS}; if none: sudo rm /tmp/libtpu_lockfile'),
    (r"No OpKernel was registered to support Op '?ConfigureDistributedTPU",
     'the installed TensorFlow wheel cannot drive a TPU; only tensorflow-tpu can', '{install}'),
    (r'disconnect_tpu_host|tpu_node_interfaces|No \S+ device found|Failed to get global TPU topology',
     'libtpu was loaded, but found no TPU that is free', '{no_tpu}'),
    (r'No TPU platform found',
     'libtpu {installed} is too new for tensorflow-tpu {wheel}', 'pip install "libtpu=={fits}"'),
    (r"No matching devices found for '/device:TPU_SYSTEM",
     'TensorFlow did not load libtpu', 'unset TPU_LOAD_LIBRARY; {install}'),
    (r'SIGSEGV',
     'TensorFlow crashed while it brought the TPU up', INSTALL_PJRT),
    (r'Please provide a TPU Name',
     'no TPU is named', 'python train.py --strategy=tpu --tpu=local'),
    (r'googleapiclient and oauth2client must be installed',
     'a TPU\'s name is looked up by Google\'s API, whose client is not installed',
     'pip install google-api-python-client oauth2client'),
    (r'Name or service not known|metadata\.google\.internal|nodename nor servname',
     'a TPU\'s name is looked up inside Google Cloud, which this machine is not in',
     'python train.py --strategy=tpu --tpu=local'),
    (r'Failed to get TPU metadata|Failed to fetch URL after',
     'libtpu waits for Google\'s metadata server, which does not answer here', 'export TPU_SKIP_MDS_QUERY=1'),
    (r'Device \S*CPU:0 is not found',
     'a model built under TPUStrategy was called on the host, outside of strategy.run',
     'python evaluate.py --workdir=RUN --strategy=cpu'),
    (r'could not find registered transfer manager for platform Host',
     'the tensorflow-tpu wheel has no XLA for the CPU', 'python train.py --strategy=cpu --jit=off'),
    (r'Cannot dlopen some GPU libraries|Could not load dynamic library .*(cuda|cudnn)',
     'TensorFlow finds the GPU\'s driver, but not all of the CUDA libraries', INSTALL_GPU),
    (r"No module named 'tf_keras'|tf_keras.*not installed",
     'TF_USE_LEGACY_KERAS asks for Keras 2, which is not installed', 'unset TF_USE_LEGACY_KERAS'),
)]


def cause_of(text, machine, subject='tensorflow'):
    """The Finding for what TensorFlow or libtpu said, or None for a text that is not known."""
    installed, tf_version = (machine.packages.get(name, '') for name in ('libtpu', 'tensorflow-tpu'))
    names = {'installed': installed, 'wheel': tf_version, 'fits': TESTED_LIBTPU.get(tf_version, '0.0.14'),
             'install': install_tpu(machine), 'no_tpu': END_OTHERS if machine.has_tpu else CREATE_TPU}
    for pattern, problem, fix in CAUSES:
        if pattern.search(text):
            return Finding(subject, problem=problem.format(**names), fix=fix.format(**names))
    return None


def install_tpu(machine):
    """The command that installs what fits this machine's TPU."""
    return INSTALL_PJRT if machine.generation in PJRT_CHIPS else f'{UNINSTALL} && pip install -r requirements-tpu.txt'


def gist(text):
    """The line of a long error that says most, at most 160 characters."""
    noise = ('Graph execution error', 'Detected at node', '<stack traces', 'Traceback', 'File ', '[[', '@ ', 'I0', 'W0')
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(noise)]
    return (telling or lines or ['no message'])[0][:160].rstrip('.')


def tpu_environment(machine):
    """{variable: value} that TensorFlow needs, before it is imported, on this machine."""
    if 'tensorflow-tpu' not in machine.packages:
        return {}
    if not machine.has_tpu:      # or the import itself asks Google's metadata server, for more than six minutes
        return {'TPU_SKIP_MDS_QUERY': '1'}
    if machine.generation in PJRT_CHIPS:
        return {'NEXT_PLUGGABLE_DEVICE_USE_C_API': 'true', 'TF_PLUGGABLE_DEVICE_LIBRARY_PATH': machine.libtpu}
    return {}


def wheel(machine):
    """Which TensorFlow is installed."""
    fact = ', '.join(f'{name} {machine.packages[name]}' for name in machine.wheels) or 'none'
    if not machine.wheels:
        fix = install_tpu(machine) if machine.has_tpu else 'pip install --editable .'
        return Finding('tensorflow', fact, 'TensorFlow is not installed', fix)
    if len(machine.wheels) > 1:
        fix = install_tpu(machine) if machine.has_tpu else INSTALL_GPU if machine.nvidia_gpus else INSTALL_CPU
        return Finding('tensorflow', fact, 'these wheels overwrite each other\'s files', fix)
    return Finding('tensorflow', fact)


def needed(machine):
    """The other packages that training imports."""
    missing = [name for name in NEEDED if name not in machine.packages]
    if missing:
        fix = install_tpu(machine) if 'tensorflow-tpu' in machine.packages else 'pip install --editable .'
        return Finding('packages', 'missing: ' + ', '.join(missing), 'training imports them', fix)
    return Finding('packages', ', '.join(f'{name} {machine.packages[name]}' for name in NEEDED))


def libtpu(machine):
    """Whether libtpu fits the wheel."""
    installed, tf_version = machine.packages.get('libtpu'), machine.packages.get('tensorflow-tpu')
    fits = TESTED_LIBTPU.get(tf_version)
    if tf_version is None:
        return Finding('libtpu', f'{installed}, not used by TensorFlow' if installed else 'none')
    if installed is None:
        return Finding('libtpu', 'none', 'the tensorflow-tpu wheel needs it', install_tpu(machine))
    if fits is None:
        return Finding('libtpu', installed, f'no libtpu was tested with tensorflow-tpu {tf_version}',
                       install_tpu(machine))
    if installed != fits:
        return Finding('libtpu', installed, f'libtpu {installed} was not tested with tensorflow-tpu {tf_version}, '
                       f'libtpu {fits} was; newer ones abort its import', f'pip install "libtpu=={fits}"')
    return Finding('libtpu', f'{installed}, which fits tensorflow-tpu {tf_version}')


def imports(machine):
    """Whether TensorFlow can be imported: some pairs of wheels end the process."""
    if machine.exit_code is None or not machine.wheels:
        return Finding('import', 'not tried')
    if machine.said:
        return Finding('import', f'TensorFlow {machine.said["version"]}, ' + (
            'built for CUDA' if machine.said['cuda'] else 'not built for CUDA'))
    known = cause_of(machine.output, machine, 'import')
    ended = ('ends by signal ' if machine.exit_code < 0 else 'ends with code ') + str(abs(machine.exit_code))
    if known:
        return dataclasses.replace(known, fact=ended)
    again = ' '.join(f'{name}=={machine.packages[name]}' for name in machine.wheels)
    return Finding('import', ended, gist(machine.output),
                   wheel(machine).fix or f'pip install --force-reinstall {again}')


def cpu(machine):
    """The obstacle to training on the CPU, or None."""
    return next((found for found in (wheel(machine), needed(machine), imports(machine)) if found.problem), None)


def gpu(machine):
    """The obstacle to training on a GPU, or None."""
    if machine.said.get('gpus'):
        return cpu(machine)
    if obstacle := no_gpu(machine) or cpu(machine):
        return obstacle
    if not machine.said.get('cuda'):
        return Finding('gpu', problem=f'{machine.wheels[0]} is not built for CUDA', fix=INSTALL_GPU)
    return cause_of(machine.output, machine, 'gpu') or Finding(
        'gpu', problem='TensorFlow sees no GPU, though a driver is there', fix=INSTALL_GPU)


def no_gpu(machine):
    """Why there is no GPU for any runtime, or None."""
    hidden = machine.environment.get('CUDA_VISIBLE_DEVICES')
    if not machine.nvidia_gpus and not machine.libcuda:
        return Finding('gpu', problem='this machine has no NVIDIA GPU: none on the PCI bus, no /dev/nvidia*, no driver',
                       fix='use a machine that has one')
    if not machine.libcuda:
        return Finding('gpu', problem='a GPU is there, but its driver\'s libcuda is not',
                       fix='sudo ubuntu-drivers install')
    if hidden is not None and hidden.strip() in ('', '-1'):
        return Finding('gpu', problem='CUDA_VISIBLE_DEVICES hides all GPUs', fix='unset CUDA_VISIBLE_DEVICES')
    return None


def multiworker(machine):
    """The obstacle to several workers, or None."""
    try:
        json.loads(machine.environment.get('TF_CONFIG') or '{}')
    except ValueError:
        return Finding('multiworker', problem='TF_CONFIG is not JSON', fix='unset TF_CONFIG')
    return cpu(machine)


def tpu(machine):
    """The obstacle to a TPU of this machine, or None. What a child said that brought it up counts, if there was one."""
    if absent := no_tpu(machine):
        return absent
    if not machine.wheels:
        return wheel(machine)
    if machine.wheels != ['tensorflow-tpu']:
        return Finding('tpu', problem=f'{" and ".join(machine.wheels)} cannot drive a TPU; tensorflow-tpu alone can',
                       fix=install_tpu(machine))
    if machine.exit_code is None or machine.said.get('tpus'):
        return None
    return failed(machine.output, machine)


def no_tpu(machine):
    """Why there is no TPU for any runtime, or None."""
    if machine.has_tpu:
        return None
    return Finding('tpu', problem='this machine has no TPU: no /dev/accel*, no /dev/vfio/*, none on the PCI bus',
                   fix=CREATE_TPU)


def failed(text, machine):
    """The Finding for a TPU's bring-up that said `text`."""
    obstacle = cause_of(text, machine, 'tpu') or libtpu(machine)
    if obstacle.problem:
        return obstacle
    return Finding('tpu', problem=f'bringing the TPU up failed: {gist(text)}', fix=install_tpu(machine))


def venue(machine):
    """Whose machine it is, and what is known of TensorFlow and TPUs there."""
    variables = machine.environment
    if 'COLAB_RELEASE_TAG' in variables:
        return Finding('venue', 'Google Colab')
    if 'KAGGLE_KERNEL_RUN_TYPE' in variables:
        if machine.has_tpu and 'tensorflow-tpu' not in machine.packages:
            return Finding('venue', 'Kaggle', 'Kaggle installs tensorflow-cpu alone beside TPUs since September 2025',
                           install_tpu(machine))
        return Finding('venue', 'Kaggle')
    if 'KUBERNETES_SERVICE_HOST' in variables:
        return Finding('venue', 'Kubernetes')
    if machine.google:
        if machine.has_tpu and 'tensorflow' in machine.packages:
            return Finding('venue', 'Google Compute Engine', 'Google\'s TensorFlow images for TPUs end with TensorFlow '
                           '2.18.0, too old for this code', install_tpu(machine))
        return Finding('venue', 'Google Compute Engine')
    return Finding('venue', 'none that we know by its marks')


def chips(machine):
    """The TPU chips, and what is known of TensorFlow on them."""
    if not machine.has_tpu:
        return Finding('tpu chips', 'none')
    fact = f'{len(machine.tpu_chips) or "?"} x {machine.generation or "unknown"}: {" ".join(machine.tpu_files)}'
    if machine.generation in PJRT_CHIPS and machine.packages.get('tensorflow-tpu', '2.19.1') != '2.19.1':
        return Finding('tpu chips', fact, 'PJRT, which drives them, crashed with tensorflow-tpu 2.20.0 where it found '
                       'no TPU, and not with 2.19.1', install_tpu(machine))
    if machine.generation == 'v6e':
        return Finding('tpu chips', f'{fact} (Google\'s managed training has no TensorFlow for v6e)')
    return Finding('tpu chips', fact)


def cuda(machine):
    """The CUDA libraries."""
    wheels = [name for name in machine.packages if name.startswith('nvidia-') and '-cu1' in name]
    return Finding('cuda', f'{machine.nvidia_gpus} NVIDIA GPU on the PCI bus or in /dev; the driver\'s libcuda '
                   f'{"found" if machine.libcuda else "missing"}; {len(wheels)} nvidia wheels')


# Named one by one where others of the family are secrets (KAGGLE_KEY), and at most 60 characters of each are shown.
VARIABLES = re.compile(r'TPU_\w+|TF_CONFIG|TF_USE_LEGACY_KERAS|TF_XLA_FLAGS|TF_CPP_MIN_LOG_LEVEL|TF_PLUGGABLE_\w+|'
                       r'NEXT_PLUGGABLE_\w+|CUDA_VISIBLE_DEVICES|LD_LIBRARY_PATH|KERAS_BACKEND|XLA_FLAGS|PJRT_DEVICE|'
                       r'JAX_PLATFORMS|LIBTPU_INIT_ARGS|MEGASCALE_\w+|SLURM_(JOB_ID|STEP_NUM_TASKS|NODELIST|PROCID)|'
                       r'COLAB_RELEASE_TAG|KAGGLE_KERNEL_RUN_TYPE|KUBERNETES_SERVICE_HOST')


def environment(machine):
    """A Finding for each environment variable that matters here."""
    return [_variable(name, value, machine) for name, value in sorted(machine.environment.items())
            if VARIABLES.fullmatch(name)]


def _variable(name, value, machine):
    problem = ''
    if name == 'TF_USE_LEGACY_KERAS' and value.lower() in ('1', 'true'):
        problem = 'tf.keras is Keras 2 with it; this code is for Keras 3'
    elif name == 'KERAS_BACKEND' and value != 'tensorflow':
        problem = 'Keras computes with TensorFlow here'
    elif name == 'TPU_LOAD_LIBRARY' and value == '0':
        problem = 'TensorFlow does not load libtpu, so --tpu=local finds no TPU'
    elif name == 'TPU_NAME' and not machine.has_tpu and value == 'local':
        problem = '--strategy=auto takes a TPU that is named, and there is none'
    elif name == 'CUDA_VISIBLE_DEVICES' and machine.nvidia_gpus and value.strip() in ('', '-1'):
        problem = 'it hides all GPUs'
    elif name == 'TF_CONFIG' and multiworker(machine) and multiworker(machine).subject == 'multiworker':
        problem = 'it is not JSON'
    return Finding('environment', f'{name}={value[:60]}', problem, f'unset {name}' if problem else '')
