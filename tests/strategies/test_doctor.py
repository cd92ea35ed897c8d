"""Every cause over the text that it stands for, every verdict over a machine's facts, and the real doctor."""

import configparser
import dataclasses
import os
import re
import subprocess
import venv

import pytest

from errors import UserError
from strategies import diagnosis, doctor, jax_diagnosis, selection, tpu
from strategies.diagnosis import Machine
from tests.conftest import ROOT, clean_environment

PLAIN = {'absl-py': '2.5.1', 'keras': '3.15.1', 'numpy': '2.4.6', 'sacrebleu': '2.6.0', 'safetensors': '0.8.0',
         'scikit-learn': '1.9.1', 'tensorboard': '2.21.0', 'tqdm': '4.70.1', 'tensorflow': '2.21.0'}
TPU = {**PLAIN, 'tensorflow-tpu': '2.20.0', 'libtpu': '0.0.14'}
del TPU['tensorflow']
SAID = {'version': '2.21.0', 'cuda': True, 'cpus': 1, 'gpus': 0}
CPU_ONLY = Machine(PLAIN, {}, said=SAID, exit_code=0)
V6E = Machine({**TPU, 'tensorflow-tpu': '2.19.1', 'libtpu': '0.0.10'}, {}, tpu_chips=('v6e',) * 8, libtpu='/libtpu.so',
              said={**SAID, 'tpus': 8}, exit_code=0)

# What TensorFlow and libtpu said: tensorflow 2.21.0, tensorflow-tpu 2.20.0 and 2.19.1, on a machine without a TPU; the
# others have an address.
TEXTS = [
    ("ModuleNotFoundError: No module named 'tensorflow'", 'TensorFlow is not installed', 'requirements-tpu.txt'),
    ('F external/local_xla/xla/stream_executor/tpu/tpu_library_init_fns.inc:12] ConfigureDistributedTpuOp_DoWork not '
     'available in this library.', r'libtpu 0.0.52 does not fit tensorflow-tpu 2.20.0', '"libtpu==0.0.14"'),
    ('tpu_api_dlsym_initializer.cc:138] FindAndLoadTpuLibrary failed with ABORTED: Internal error when accessing '
     'libtpu multi-process lockfile. Run "$ sudo rm /tmp/libtpu_lockfile".. This is expected if TPU is not used.',
     'another process holds the TPU', 'sudo rm /tmp/libtpu_lockfile'),
    ('TPUs not found in the cluster. Failed in initialization: No OpKernel was registered to support Op '
     '\'ConfigureDistributedTPU\' used by {{node ConfigureDistributedTPU}} with these attrs: [is_global_init=false]\n'
     'Registered devices: [CPU]\nRegistered kernels:\n  <no registered kernels>',
     'wheel cannot drive a TPU', 'pip uninstall -y tensorflow .*requirements-tpu.txt'),
    ('Graph execution error:\n\nDetected at node disconnect_tpu_host/_1 defined at (most recent call last):\n<stack '
     'traces unavailable>\nRET_CHECK failure (learning/45eac/google/xla/tpu_node_interfaces.cc:432) *platform \n\t '
     '[[{{node disconnect_tpu_host/_1}}]] [Op:__inference__tpu_init_fn_4]', 'found no TPU that is free', 'gcloud'),
    ('TPU initialization failed: No ba16c7433 device found.\n\t [[{{node configure_tpu_host/_2}}]]',
     'found no TPU that is free', 'gcloud'),
    ('Failed to get global TPU topology.', 'found no TPU that is free', 'gcloud'),
    ('tpu_platform_interface.cc:78] No TPU platform found. Platform manager status: OK',
     'libtpu 0.0.52 is too new', '"libtpu==0.0.14"'),
    ("Failed in initialization: No matching devices found for '/device:TPU_SYSTEM:0' [Op:__inference__tpu_init_fn_4]",
     'did not load libtpu', 'unset TPU_LOAD_LIBRARY'),
    ('*** SIGSEGV (@(nil)), see go/stacktraces#s15 received by PID 23584 (TID 23607) on cpu 0; stack trace: ***',
     'crashed', 'requirements-tpu-2.19.txt'),
    ('Please provide a TPU Name to connect to.', 'no TPU is named', '--tpu=local'),
    ('ImportError: googleapiclient and oauth2client must be installed before using the TPU cluster resolver.',
     'client is not installed', 'pip install google-api-python-client oauth2client'),
    ('URLError: <urlopen error [Errno -2] Name or service not known>', 'inside Google Cloud', '--tpu=local'),
    ('Failed to get TPU metadata (tpu-env) from instance metadata for variable HOST_BOUNDS: INTERNAL: Failed to fetch '
     'URL after 30 tries (http status: 403); curl status: No error', 'metadata server', 'TPU_SKIP_MDS_QUERY=1'),
    # https://github.com/tensorflow/tensorflow/issues/74926
    ('ValueError: Device /job:localhost/replica:0/task:0/device:CPU:0 is not found', 'on the host', '--strategy=cpu'),
    ('could not find registered transfer manager for platform Host -- check target linkage', 'no XLA', '--jit=off'),
    # https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/core/common_runtime/gpu/gpu_device.cc
    ('Cannot dlopen some GPU libraries. Please make sure the missing libraries mentioned above are installed properly',
     'not all of the CUDA libraries', r'tensorflow\[and-cuda\]'),
    ("ModuleNotFoundError: No module named 'tf_keras'", 'Keras 2', 'unset TF_USE_LEGACY_KERAS'),
]


@pytest.mark.parametrize('text, problem, fix', TEXTS, ids=[problem for _, problem, _ in TEXTS])
def test_what_tensorflow_says_has_a_cause_and_what_fixes_it(text, problem, fix):
    machine = Machine({**TPU, 'libtpu': '0.0.52'}, {})
    found = diagnosis.cause_of(text, machine)
    assert re.search(problem, found.problem) and re.search(fix, found.fix)
    assert '\n' not in str(found) and '{' not in str(found)


def test_every_cause_has_a_text():
    hit = [next(row for row in diagnosis.CAUSES if row[0].search(text)) for text, _, _ in TEXTS]
    assert all(row in hit for row in diagnosis.CAUSES)
    assert diagnosis.cause_of('something new', CPU_ONLY) is None


@pytest.mark.parametrize('function, changes, problem, fix', [
    ('wheel', {'packages': {}}, 'not installed', 'pip install --editable'),
    ('wheel', {'packages': {}, 'tpu_files': ('/dev/accel0',), 'environment': {'COLAB_RELEASE_TAG': 'x'}},
     'not installed', 'requirements-tpu.txt'),
    ('wheel', {'packages': {**PLAIN, **TPU}}, 'overwrite each other', 'pip uninstall .* && pip install --editable'),
    ('needed', {'packages': {'tensorflow': '2.21.0'}}, 'training imports them', 'pip install --editable'),
    ('libtpu', {'packages': {**TPU, 'libtpu': '0.0.52'}}, r'0\.0\.52 was not tested', r'"libtpu==0\.0\.14"'),
    ('libtpu', {'packages': {**TPU, 'tensorflow-tpu': '2.19.1'}}, r'0\.0\.14 was not tested', r'"libtpu==0\.0\.10"'),
    ('libtpu', {'packages': {**TPU, 'tensorflow-tpu': '2.18.0'}}, 'no libtpu was tested', 'requirements-tpu.txt'),
    ('imports', {'said': {}, 'exit_code': -6, 'packages': {**TPU, 'libtpu': '0.0.52'}, 'output': TEXTS[1][0]},
     r'libtpu 0\.0\.52 does not fit', r'"libtpu==0\.0\.14"'),
    ('imports', {'said': {}, 'exit_code': 1, 'output': 'Traceback (most recent call last):\nImportError: numpy'},
     'ImportError: numpy', 'force-reinstall tensorflow==2.21.0'),
    ('cpu', {'said': {}, 'exit_code': 124, 'output': TEXTS[13][0]}, 'metadata server', 'TPU_SKIP_MDS_QUERY'),
    ('gpu', {}, 'no NVIDIA GPU', ''),
    ('gpu', {'nvidia_gpus': 1}, 'libcuda is not', 'ubuntu-drivers'),
    ('gpu', {'nvidia_gpus': 1, 'libcuda': True, 'environment': {'CUDA_VISIBLE_DEVICES': '-1'}}, 'hides', 'unset'),
    ('gpu', {'nvidia_gpus': 1, 'libcuda': True, 'said': {**SAID, 'cuda': False}}, 'not built for CUDA', 'and-cuda'),
    ('gpu', {'nvidia_gpus': 1, 'libcuda': True, 'output': TEXTS[16][0]}, 'not all of the CUDA libraries', 'and-cuda'),
    ('multiworker', {'environment': {'TF_CONFIG': '{'}}, 'not JSON', 'unset TF_CONFIG'),
    ('tpu', {}, 'has no TPU', 'gcloud'),
    ('tpu', {'environment': {'TPU_NAME': 'local', 'TPU_ACCELERATOR_TYPE': 'v5litepod-8'}}, 'has no TPU', 'gcloud'),
    ('tpu', {'tpu_files': ('/dev/accel0',)}, 'tensorflow cannot drive a TPU', 'requirements-tpu.txt'),
    ('tpu', {'tpu_files': ('/dev/vfio/0',), 'packages': {**TPU, 'tensorflow-cpu': '2.20.0'}},
     'tensorflow-cpu and tensorflow-tpu cannot', 'pip uninstall'),
    ('tpu', {'tpu_chips': ('v4',), 'packages': TPU, 'exit_code': 1, 'output': TEXTS[2][0]}, 'another process', 'fuser'),
    ('tpu', {'tpu_chips': ('v4',), 'packages': TPU, 'exit_code': 1, 'output': TEXTS[4][0]}, 'that is free', 'fuser'),
    ('tpu', {'tpu_chips': ('v4',), 'packages': TPU, 'exit_code': 1, 'output': 'E: new'}, 'failed: E: new', 'pip'),
    ('tpu', {'tpu_chips': ('v4',), 'packages': {**TPU, 'libtpu': '0.0.20'}, 'exit_code': 1, 'output': 'E: new'},
     'libtpu 0.0.20 was not tested', 'libtpu==0.0.14'),
    ('venue', {'tpu_files': ('/dev/accel0',), 'environment': {'KAGGLE_KERNEL_RUN_TYPE': 'Batch'},
               'packages': {'tensorflow-cpu': '2.20.0'}}, 'Kaggle installs tensorflow-cpu alone', 'requirements-tpu'),
    ('venue', {'tpu_files': ('/dev/accel0',), 'google': True, 'packages': {'tensorflow': '2.18.0'}},
     'end with TensorFlow 2.18.0', 'requirements-tpu'),
    ('chips', {'tpu_chips': ('v5e',), 'packages': TPU}, 'crashed with tensorflow-tpu 2.20.0', 'requirements-tpu-2.19'),
    ('tpu', {'tpu_chips': ('v5e',)}, 'tensorflow cannot drive', 'requirements-tpu-2.19'),
])
def test_a_machine_that_cannot_has_a_cause_and_what_fixes_it(function, changes, problem, fix):
    found = getattr(diagnosis, function)(dataclasses.replace(CPU_ONLY, **changes))
    assert re.search(problem, found.problem) and re.search(fix, found.fix) and found.fix


@pytest.mark.parametrize('name, machine', [
    ('cpu', CPU_ONLY), ('multiworker', CPU_ONLY), ('tpu', V6E), ('cpu', V6E),
    ('gpu', dataclasses.replace(CPU_ONLY, nvidia_gpus=2, libcuda=True, said={**SAID, 'gpus': 2})),
])
def test_a_machine_that_can_has_no_obstacle(name, machine):
    assert getattr(diagnosis, name)(machine) is None
    text = '\n'.join(doctor.report(machine))
    assert re.search(rf'^{name} +yes: ', text, re.MULTILINE) and 'cause:' not in text


JAX = {'jax': '0.10.2', 'jaxlib': '0.10.2'}
TPU_VM = dataclasses.replace(CPU_ONLY, packages={**PLAIN, **JAX, 'libtpu': '0.0.42.1'}, tpu_chips=('v5e',) * 8)
GPU = dataclasses.replace(CPU_ONLY, packages={**PLAIN, **JAX, 'jax-cuda12-plugin': '0.10.2'}, nvidia_gpus=1,
                          libcuda=True, said={**SAID, 'cuda': False})
EXTRA = r'pip install -e "\.\[tpu\]"$'


def verdict(machine, name):
    """The doctor's on a strategy, in one line: 'no, because ... fix: ...'."""
    text = '\n'.join(doctor.report(machine))
    found = re.search(rf'^{name} +(.*?)(?=^\w|\Z)', text.split('\n\n')[1], re.MULTILINE | re.DOTALL)
    return ' '.join(found[1].split())


def without(machine, *names, **versions):
    packages = {name: version for name, version in machine.packages.items() if name not in names}
    return dataclasses.replace(machine, packages=packages | versions)


@pytest.mark.parametrize('machine, name, said', [
    (dataclasses.replace(TPU_VM, said_by_jax={'devices': 8, 'kind': 'TPU v5 lite'}), 'tpu',
     r'yes: 8 devices \(TPU v5 lite\), by runtime pjrt, jax 0\.10\.2; not by TensorFlow, because tensorflow cannot'),
    (V6E, 'tpu', 'yes: 8 devices, by runtime tensorflow$'),
    (without(TPU_VM, 'jax'), 'tpu', f'no, because jax is not installed, and TensorFlow cannot: .*fix: {EXTRA}'),
    (without(TPU_VM, jax='0.7.2'), 'tpu', rf'no, because jax 0\.7\.2 is too old: 0\.8 or newer .*fix: {EXTRA}'),
    (without(TPU_VM, 'libtpu'), 'tpu', f'no, because libtpu is not installed, and .*fix: {EXTRA}'),
    (dataclasses.replace(TPU_VM, said_by_jax={'error': 'RuntimeError: in use'}), 'tpu',
     r'no, because jax 0\.10\.2 sees no TPU: RuntimeError: in use, and .*fix: .*fuser'),
    (without(CPU_ONLY, **JAX, libtpu='0.0.42.1'), 'tpu', 'no, because this machine has no TPU: .*fix: gcloud'),
    (without(TPU_VM, 'tensorflow'), 'tpu', 'no, because TensorFlow is not installed fix: '),
    (dataclasses.replace(GPU, said_by_jax={'devices': 1, 'kind': 'NVIDIA H200'}), 'gpu',
     r'yes: 1 device \(NVIDIA H200\), by --runtime=pjrt, jax 0\.10\.2; not by TensorFlow, because .*not built for'),
    (without(GPU, 'jax-cuda12-plugin'), 'gpu',
     r'no, because jax\'s CUDA plugin is not installed, and .* fix: pip install "jax\[cuda12\]"$'),
    (dataclasses.replace(GPU, libcuda=False), 'gpu', 'no, because a GPU is there, but its driver.*ubuntu-drivers'),
])
def test_the_runtime_that_drives_a_tpu_or_gpu_is_named(machine, name, said):
    assert re.match(said, verdict(machine, name)), verdict(machine, name)


@pytest.mark.parametrize('machine, name, said', [
    (TPU_VM, 'tpu', (True, r'by runtime pjrt, jax 0\.10\.2; not by TensorFlow, because tensorflow cannot drive')),
    (without(TPU_VM, 'jax'), 'tpu', (False, f'jax is not installed, and .*fix: {EXTRA}')),
    (without(TPU_VM, 'libtpu'), 'tpu', (False, f'libtpu is not installed, and .*fix: {EXTRA}')),
    (V6E, 'tpu', (True, 'this machine has a TPU, by runtime tensorflow')),
    (GPU, 'gpu', (True, r'by --runtime=pjrt, jax 0\.10\.2; not by TensorFlow, because ')),
])
def test_the_list_names_it_too(monkeypatch, machine, name, said):
    monkeypatch.setattr(doctor, 'look', lambda: machine)
    can, reason = selection.usable()[name]
    assert can == said[0] and re.match(said[1], reason), reason


def test_a_tpu_that_nothing_drives_is_an_error_that_names_the_shorter_way(monkeypatch):
    monkeypatch.setattr(doctor, 'look', lambda: without(TPU_VM, 'jax'))
    with pytest.raises(UserError, match=r'jax is not installed, .*To fix it: pip install -e "\.\[tpu\]"\.') as error:
        selection.select('tpu')
    assert '\n' not in str(error.value)


@pytest.mark.skipif('jax' not in doctor.look().packages, reason='needs pip install -e ".[tpu]"')
def test_the_child_that_asks_jax_says_why_there_is_no_tpu():
    if doctor.look().has_tpu:
        pytest.skip('this machine has a TPU')
    packages = {**doctor.look().packages, 'tensorflow': '2.21.0'}
    machine = doctor.ask_jax(Machine(packages, dict(os.environ), tpu_chips=('v5e',)))
    assert 'tpu' in machine.said_by_jax['error'].lower()
    assert 'sees no TPU: ' in jax_diagnosis.obstacle(machine, 'tpu').problem


def test_of_v6e_google_is_quoted():
    assert re.search('8 x v6e.*no TensorFlow for v6e', diagnosis.chips(V6E).fact)


@pytest.mark.parametrize('variable, value, harmful', [
    ('TF_USE_LEGACY_KERAS', '1', True), ('TF_USE_LEGACY_KERAS', '0', False), ('KERAS_BACKEND', 'jax', True),
    ('TPU_LOAD_LIBRARY', '0', True), ('TPU_NAME', 'local', True), ('TF_CONFIG', '{', True), ('XLA_FLAGS', '-x', False),
])
def test_a_variable_that_matters_is_shown(variable, value, harmful):
    found, = diagnosis.environment(Machine(PLAIN, {variable: value, 'KAGGLE_KEY': 'secret', 'HOME': '/'}))
    assert found.fact == f'{variable}={value}' and bool(found.problem) == harmful == bool(found.fix)


def test_the_real_doctor_says_why_this_machine_has_no_gpu_and_no_tpu(run_python):
    if doctor.look().has_tpu:
        pytest.skip('this machine has a TPU')
    done = run_python('-m', 'strategies.doctor', env={'TF_CPP_MIN_LOG_LEVEL': '0'})
    assert done.stderr == ''
    assert re.search('^cpu +yes: 1 device$', done.stdout, re.MULTILINE)
    assert re.search('^gpu +no, because ', done.stdout, re.MULTILINE)
    assert all(len(line) <= doctor.WIDTH for line in done.stdout.splitlines() if 'fix: ' not in line)
    with pytest.raises(UserError) as error:
        tpu.bring_up('local')
    problem, fix = re.search(r'\'local\': (.*)\. To fix it: (.*)\. Received', str(error.value)).groups()
    assert f'tpu no, because {problem} fix: {fix}' in ' '.join(done.stdout.split())


def test_a_child_that_hangs_is_ended():
    machine = doctor.ask_tensorflow(Machine(PLAIN, dict(os.environ)), seconds=.1)
    assert machine.exit_code == 124 and 'its time was over' in diagnosis.cpu(machine).problem


def test_what_is_needed_is_what_is_declared():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    required = re.findall(r'^([\w-]+)', config['options']['install_requires'], re.MULTILINE)
    assert set(required) == {*diagnosis.NEEDED, 'tensorflow'}
    for path in ('requirements-tpu.txt', 'requirements-tpu-2.19.txt'):
        pins = dict(re.findall(r'^([\w-]+)==(\S+)$', (ROOT / path).read_text(), re.MULTILINE))
        assert sorted(pins) == sorted((*diagnosis.NEEDED, 'tensorflow-tpu', 'libtpu'))
        assert pins['libtpu'] == diagnosis.TESTED_LIBTPU[pins['tensorflow-tpu']]


@pytest.mark.slow
def test_a_wheel_whose_import_aborts_is_diagnosed(tmp_path):
    venv.create(tmp_path, with_pip=True)
    pip = [tmp_path / 'bin' / 'python', '-m', 'pip', 'install', '--quiet']
    subprocess.run([*pip, '--requirement', ROOT / 'requirements-tpu.txt'], check=True)
    subprocess.run([*pip, '--no-deps', 'libtpu==0.0.52'], check=True)
    # Or a libtpu that another process uses at the same time is not loaded at all.
    done = subprocess.run([pip[0], '-m', 'strategies.doctor'], cwd=ROOT, capture_output=True, text=True,
                          env=clean_environment(ALLOW_MULTIPLE_LIBTPU_LOAD='1'), timeout=300)
    text = ' '.join(done.stdout.split())
    assert done.returncode == 0
    assert 'cpu no, because libtpu 0.0.52 does not fit tensorflow-tpu 2.20.0, whose import aborts' in text
    assert 'fix: pip install "libtpu==0.0.14"' in text
