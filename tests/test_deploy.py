"""docs/deploy.md: its tables against saved_model_cli, its requests and clients against a server, its containers.

The fast tests ask untrained models, whose answers have the form of the page's; the slow ones also compare the values.
"""

import ast
import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

import recipes
from data.dataset import Label, Text
from data.source import Tensors
from data.tokenizers.words import WordTokenizer
from experiment.export import export_saved_model
from experiment.parts import build_model, open_data
from tests import model_server
from tests.conftest import ROOT
from tests.opened import one_source, task_of
from tests.pages import TEXTS, execute

PAGE = TEXTS['deploy.md']
RUNS = {'digits': 'mlp_digits', 'trec': 'lstm_trec', 'numbers': 'transformer_number_words', 'diabetes': 'mlp_diabetes'}
TRAINED = ('digits', 'diabetes')      # in seconds, of data that is everywhere
KINDS = {'classification of images': 'digits', 'classification of texts': 'trec', 'translation': 'numbers',
         'regression': 'diabetes'}
CONSOLE = '\n'.join(re.findall(r'```console\n(.*?)```', PAGE, flags=re.DOTALL))
REQUESTS = re.findall(r'^\$ (curl .*?)\n(\{"(?:predictions|outputs|error)".*?)(?=^\$ |\Z|^[^ {])', CONSOLE,
                      flags=re.DOTALL | re.MULTILINE)


def untrained(name):
    """(task, model) of the run behind a name. trec has no data here: made questions with its classes and lengths."""
    recipe = recipes.load(RUNS[name])[1].resolved('cpu')
    if name != 'trec':
        _, task = open_data(recipe)
    else:
        made = Tensors(text=np.array([b'who what ?', b'when ?'], object), label=np.array([0, 5], np.int32))
        words = ['who', 'what', 'when', '?', *(f'word{i}' for i in range(200))]      # ids up to 109 are on the page
        text = Text('', WordTokenizer(words), recipe.data.max_length)
        task = task_of('classification', one_source(made, text=text, label=Label(tuple('012345'))))
    return task, build_model(recipe, task)


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
    """{name: folder} of the exports of untrained models."""
    folder = tmp_path_factory.mktemp('exports')
    return {name: export_saved_model(model, task, folder / name / '1')
            for name, (task, model) in ((name, untrained(name)) for name in RUNS)}


@pytest.fixture(scope='module')
def server(exports):
    """Ports of a server of untrained models: (REST, gRPC)."""
    with serving(exports) as ports:
        yield ports


@pytest.fixture(scope='module')
def trained_server(exports, tmp_path_factory, run_python):
    """The same, with models that their recipes trained where that takes seconds."""
    folder = tmp_path_factory.mktemp('runs')
    for name in TRAINED:
        run_python('train.py', f'--recipe={RUNS[name]}', f'--workdir={folder / name}')
    with serving(exports | {name: folder / name / 'export' / '1' for name in TRAINED}) as ports:
        yield ports


@contextlib.contextmanager
def serving(folders):
    servables = {name: model_server.Servable(folder) for name, folder in folders.items()}
    with model_server.rest(servables) as rest, model_server.by_grpc(servables) as grpc:
        yield rest, grpc


def send(command, port):
    """A curl command of the page, as bash expands it, sent to a port of this machine: -> what is answered."""
    done = subprocess.run(['bash', '-ec', "curl() { printf '%s\\0' \"$@\"; }\n" + command], cwd=ROOT, check=True,
                          capture_output=True, text=True)
    flag, body, url, _ = done.stdout.split('\0')
    assert flag == '-d' and url.startswith('http://localhost:8501/')
    request = urllib.request.Request(url.replace('8501', str(port)), body.encode(),
                                     {'Content-Type': 'application/json'})
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return json.load(error)


def form(value):
    """Names, nesting, lengths and types of a JSON value."""
    if isinstance(value, dict):
        return {key: form(part) for key, part in value.items()}
    if isinstance(value, list):
        return [form(part) for part in value]
    return 'number' if type(value) in (int, float) else type(value).__name__


def assert_close(ours, page):
    """Equal, but for numbers with a fraction: another machine's weights differ in their last digits."""
    if isinstance(page, dict):
        for key in page:
            assert_close(ours[key], page[key])
    elif isinstance(page, list):
        for one, other in zip(ours, page, strict=True):
            assert_close(one, other)
    elif isinstance(ours, float):
        assert abs(ours - page) < 0.02
    else:
        assert ours == page


def test_the_page_has_requests_for_every_signature_in_rows_and_in_columns(exports):
    sent = [(re.search(r'models/(\w+):', command)[1], (re.search(r'signature_name": "(\w+)', command) or
            ['', 'serving_default'])[1], re.search('instances|inputs', command)[0]) for command, _ in REQUESTS]
    assert len(REQUESTS) == CONSOLE.count('$ curl') and set(RUNS) == {name for name, *_ in sent}
    for name, folder in exports.items():
        signatures = {key for key in model_server.Servable(folder).signatures if not key.startswith('_')}
        assert signatures == {signature for model, signature, _ in sent if model == name}
        assert {'instances', 'inputs'} == {layout for model, _, layout in sent if model == name}


@pytest.mark.parametrize('command, answer', REQUESTS, ids=lambda text: text[:40])
def test_a_request_of_the_page_is_answered_in_the_form_of_the_page(server, command, answer):
    ours, page = send(command, server[0]), json.loads(answer)
    assert form(ours) == form(page)
    if 'error' in page:
        assert ours == page


@pytest.mark.slow
@pytest.mark.parametrize('command, answer', [pair for pair in REQUESTS if re.search('|'.join(TRAINED), pair[0])],
                         ids=lambda text: text[:40])
def test_a_trained_model_answers_as_the_page_says(trained_server, command, answer):
    assert_close(send(command, trained_server[0]), json.loads(answer))


@pytest.mark.parametrize('request_, name, message', [
    ({'inputs': {'text': ['a']}}, 'trec', 'named inputs'),
    ({'inputs': {'texts': ['a']}, 'signature_name': 'text'}, 'trec', 'not found'),
    ({'instances': [[1.5] * 24], 'signature_name': 'tokens'}, 'trec', 'not of expected type: int32'),
    ({'instances': ['9'], 'signature_name': 'tokens'}, 'trec', 'not of expected type: int32'),
    ({'instances': [{'b64': '%'}], 'signature_name': 'encoded'}, 'digits', 'base64'),
    ({'instances': [[1.] * 9]}, 'diabetes', r'\(1, 9\)'),
    ({}, 'trec', 'expecting one of')])
def test_a_request_that_does_not_fit_is_refused(server, request_, name, message):
    """Else the tests above could not fail."""
    answer = send(f'curl -d {shlex.quote(json.dumps(request_))} http://localhost:8501/v1/models/{name}:predict',
                  server[0])
    assert re.search(message, answer['error'], re.IGNORECASE), answer


def batch(signature, size):
    """Inputs of `size` rows for a signature; sizes that are open are 5."""
    one = {'image_bytes': (ROOT / 'tests' / 'images' / 'digit.png').read_bytes(), 'texts': b'two thousand'}
    return {name: np.full([size, *(dim.size if dim.size > 0 else 5 for dim in tensor.tensor_shape.dim[1:])],
                          one.get(name, 1), tf.as_dtype(tensor.dtype).as_numpy_dtype)
            for name, tensor in signature.inputs.items()}


def test_a_session_answers_batches_of_none_of_one_and_of_three(exports):
    for folder in exports.values():
        servable = model_server.Servable(folder)
        for name, signature in servable.signatures.items():
            for size in (0, 1, 3) if not name.startswith('_') else ():
                for output, value in servable.run(name, batch(signature, size)).items():
                    fixed = [dim.size for dim in signature.outputs[output].tensor_shape.dim][1:]
                    assert list(value.shape) == [size, *fixed], (folder, name, output)


def test_files_of_unequal_images_are_one_batch(exports):
    servable, random = model_server.Servable(exports['digits']), np.random.RandomState(0)
    pictures = [random.randint(0, 256, shape).astype(np.uint8) for shape in ((8, 8, 1), (40, 31, 3), (5, 64, 1))]
    files = np.array([write(picture).numpy() for write, picture in zip(
        (tf.io.encode_png, tf.io.encode_jpeg, tf.io.encode_png), pictures)], object)
    together = servable.run('encoded', {'image_bytes': files})
    for i in range(3):
        alone = servable.run('encoded', {'image_bytes': files[i:i + 1]})
        np.testing.assert_allclose(together['probabilities'][i], alone['probabilities'][0], atol=1e-5)


# --- Clients ---

def client(*arguments):
    """A copy of the client, run without any installed package."""
    return subprocess.run([sys.executable, '-I', '-S', ROOT / 'experiment' / 'client.py', *arguments], cwd=ROOT,
                          capture_output=True, text=True)


def client_commands():
    """[(arguments, what the page says is printed)]"""
    lines = re.findall(r'^\$ python -m experiment\.client (.*)\n(.*)\n', CONSOLE, flags=re.MULTILINE)
    assert len(lines) == 2
    return [(shlex.split(arguments), printed) for arguments, printed in lines]


@pytest.mark.parametrize('arguments, printed', client_commands(), ids=['image', 'text'])
def test_the_client_prints_a_label_or_a_translation(server, arguments, printed):
    done = client(*(part.replace('8501', str(server[0])) for part in arguments))
    assert (done.returncode, done.stderr) == (0, '')
    if printed.startswith('9'):
        assert re.fullmatch(r'\d \(\d+\.\d%\)\n', done.stdout)
    else:
        assert done.stdout.endswith('\n')       # an untrained model writes anything


@pytest.mark.slow
def test_the_client_prints_what_the_page_says(trained_server):
    arguments, printed = client_commands()[0]
    assert client(*(part.replace('8501', str(trained_server[0])) for part in arguments)).stdout == f'{printed}\n'


def test_a_mistake_at_the_client_is_one_line(server, tmp_path):
    with socket.socket() as unused:
        unused.bind(('localhost', 0))
        nobody = f'http://localhost:{unused.getsockname()[1]}/v1/models/trec'
        address = f'http://localhost:{server[0]}/v1/models'
        for arguments, message in (((nobody, '--text=who ?'), 'refused'),
                                   ((f'{address}/none', '--text=who ?'), 'Servable not found'),
                                   ((f'{address}/trec', '--image=tests/images/digit.png'), '"encoded'),
                                   ((f'{address}/digits', f'--image={tmp_path}/none.png'), 'No such file'),
                                   (('localhost', '--text=who ?'), 'unknown url')):
            done = client(*arguments)
            assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
            assert message in done.stderr.replace('\\', '') and not done.stdout


@pytest.mark.slow
def test_the_page_s_grpc_client_prints_what_the_page_says(trained_server):
    program = re.search(r'```\n(import grpc\n.*?)```', PAGE, flags=re.DOTALL)[1]
    printed = execute('python', program.replace('localhost:8500', f'localhost:{trained_server[1]}'), ROOT)
    calls = re.findall(r"print\(ask\('(\w+)'.*# (.*)", program)
    assert len(calls) == 6
    for (name, page), ours in zip(calls, printed.splitlines(), strict=True):
        if page == "[b'3']":
            assert re.fullmatch(r"\[b'[0-5]'\]", ours)
        elif name != 'numbers':
            assert ours == page


# --- Tables ---

def table(title):
    """Rows of a table of the page, by its first column's title."""
    lines = re.search(rf'^\| {title} \|.*\n\|[-|]*\n((?:\|.*\n)*)', PAGE, flags=re.MULTILINE)[1].splitlines()
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


def typed(text, ranks={'B', 'h', 'w', 'c'}):
    """'float32 [B, K], ...' -> (dtype, [whether each size is open])"""
    dtype, sizes = re.match(r'(\w+) \[(.*?)\]', text).groups()
    return dtype, [size in ranks for size in sizes.split(', ')]


def documented():
    """{name: {signature: ({input: type}, {output: type})}}"""
    types = {row[0].strip('`'): typed(row[1]) for row in table('output')}
    found, name, outputs = {}, None, None
    for kind, signature, inputs, answers in table('task'):      # an empty first cell is the one above it
        name = KINDS[kind] if kind else name
        outputs = outputs if answers == 'the same' else re.findall(r'`(\w+)`', answers)
        key, rest = re.match(r'`(\w+)`: (.*)', inputs).groups()
        found.setdefault(name, {})[signature.strip('`')] = ({key: typed(rest)}, {key: types[key] for key in outputs})
    return found


def shown(text):
    """What saved_model_cli prints, in the same form."""
    found = {}
    for signature, body in re.findall(r"signature_def\['(\w+)'\]:\n(.*?)Method name", text, flags=re.DOTALL):
        both = {'inputs': {}, 'outputs': {}}
        for side, key, dtype, shape in re.findall(r"(inputs|outputs)\['(\w+)'\] tensor_info:\s+dtype: DT_(\w+)\s+"
                                                  r"shape: \((.*?)\)", body):
            sizes = [size.strip() for size in shape.split(',')]
            both[side][key] = ({'FLOAT': 'float32'}.get(dtype, dtype.lower()), [size == '-1' for size in sizes])
        if not signature.startswith('_'):
            found[signature] = (both['inputs'], both['outputs'])
    return found


def test_the_tables_are_the_signatures(exports):
    for name, folder in exports.items():
        signatures = {}
        for key, signature in model_server.Servable(folder).signatures.items():
            if not key.startswith('_'):
                signatures[key] = tuple(
                    {part: (tf.as_dtype(tensor.dtype).name, [size.size == -1 for size in tensor.tensor_shape.dim])
                     for part, tensor in side.items()} for side in (signature.inputs, signature.outputs))
        assert documented()[name] == signatures


@pytest.mark.slow
@pytest.mark.parametrize('name', RUNS)
def test_saved_model_cli_shows_what_the_tables_say(exports, name):
    command = re.search(r'^saved_model_cli show.*', PAGE, flags=re.MULTILINE)[0]
    printed = execute('bash', command.replace('runs/cnn_digits/export/1', str(exports[name])), ROOT)
    assert shown(printed) == documented()[name]


# --- Containers ---

def instructions(name):
    """[(instruction, text)] of a Dockerfile."""
    lines = (ROOT / 'docker' / f'{name}.Dockerfile').read_text().splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith('#')]


def test_dockerfiles_name_what_exists():
    for path in re.findall(r'docker/\w+\.Dockerfile', PAGE):
        assert (ROOT / path).exists()
    for name in ('train', 'serve'):
        text = (ROOT / 'docker' / f'{name}.Dockerfile').read_text()
        assert {'FROM', 'COPY'} <= {instruction for instruction, _ in instructions(name)}
        for build in re.findall(r'docker build .*', text):      # the page has the same commands
            assert build in PAGE
        for extra in re.findall(r'EXTRAS=\[(\w+)\]', text):
            assert re.search(rf'^{extra} =$', (ROOT / 'setup.cfg').read_text(), flags=re.MULTILINE)
        for argument in re.findall(r'\$\{(\w+)\}', text):
            assert f'ARG {argument}' in text
    ignored = (ROOT / 'docker' / 'train.Dockerfile.dockerignore').read_text().split()
    for pattern in (ROOT / '.gitignore').read_text().split():      # what git leaves out is not copied either
        assert any(pattern.strip('/') == other.removeprefix('**/') for other in ignored), pattern


@pytest.mark.slow
def test_the_command_of_the_training_container_trains(tmp_path):
    found = dict(instructions('train'))
    command = [*ast.literal_eval(found['ENTRYPOINT']), *ast.literal_eval(found['CMD'])]
    execute('bash', shlex.join([*command, '--steps=2', f'--workdir={tmp_path / "run"}']), ROOT)
    assert (tmp_path / 'run' / 'export' / '1' / 'saved_model.pb').exists()
