"""Runs a saved training step on whatever device jax finds: a GPU, a TPU, this CPU. Needs no TensorFlow.

    python program.py --model=cnn --output=cnn_program        where the project is installed
    python -m strategies.program cnn_program                  anywhere; needs jax, numpy and safetensors

A program is a folder:

    program.bin            the step, as a portable StableHLO artifact inside jax.export's format
    state.safetensors      what the step reads and updates, [...] each; without those that are drawn or 0
    batches.safetensors    the batches of the first S steps, [S, ...] each
    expected.safetensors   the weights after S steps on the machine that saved it
    program.json           what is in the others, and what the steps' losses were there
"""

import argparse
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
import sys
import time

import numpy as np

from errors import FAILED, USAGE, UserError

FORMAT = 1
FILES = ('program.json', 'program.bin', 'state.safetensors', 'batches.safetensors', 'expected.safetensors')
# Regular expression for jax's name of a device -> its FLOP/s, dense: NVIDIA's data sheets of the SXM modules, and
# cloud.google.com/tpu/docs. A product of float32 is one of TensorFloat-32 on a GPU, and of bfloat16 on a TPU, unless
# the program was saved to be exact.
PEAKS = {
    'H100 80GB HBM3': {'bfloat16': 989.4e12, 'float32': 494.7e12, 'exact float32': 66.9e12},
    'H200': {'bfloat16': 989.4e12, 'float32': 494.7e12, 'exact float32': 66.9e12},
    'A100-SXM': {'bfloat16': 312e12, 'float32': 156e12, 'exact float32': 19.5e12},
    'TPU v4': {'bfloat16': 275e12, 'float32': 275e12},
    'TPU v5 ?(lite|e)': {'bfloat16': 197e12, 'float32': 197e12},
    'TPU v5p?$': {'bfloat16': 459e12, 'float32': 459e12},
    'TPU v6 ?(lite|e)': {'bfloat16': 918e12, 'float32': 918e12},
}


@dataclasses.dataclass(frozen=True)
class Program:
    """A saved step, read: what program.json says, the artifact, and named arrays."""

    about: dict
    artifact: bytes
    state: dict
    batches: dict
    expected: dict

    @property
    def steps(self):
        """S: the batches that were saved."""
        return self.about['steps']


def read(folder):
    """The Program in a folder.

    Raises:
        UserError: there is none, or a file of it cannot be read.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError as error:
        raise UserError('safetensors is needed to read a program: pip install safetensors. '
                        f'Received: {error}') from None
    folder = pathlib.Path(folder).expanduser()
    try:
        texts = [(folder / name).read_bytes() for name in FILES]
        about = json.loads(texts[0])
        if about.get('format') != FORMAT:
            raise UserError(f'a program must be of format {FORMAT}. Received: {folder}, format {about.get("format")}')
        state, batches, expected = (load(text) for text in texts[2:])
        state = {name: state[name] if name in state else draw(name, **how) for name, how in about['state'].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'a program must be a folder of {", ".join(FILES)}. Received: {folder} ({error})') from None
    return Program(about, texts[1], state, batches, expected)


def draw(name, shape, dtype, mean=0., deviation=0.):
    """An array that follows from its name: the same on every machine with NumPy 1.17 to 2. Normal, or constant."""
    if not deviation:
        return np.full(shape, mean, dtype)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'little')
    numbers = np.random.Generator(np.random.Philox(seed)).standard_normal(math.prod(shape), np.float32)
    return (numbers * np.float32(deviation) + np.float32(mean)).astype(dtype).reshape(shape)


def compiled(program, steps_per_call):
    """A jax function (state, {batch field: [K, ...]}, first step) -> (state, losses [K]), K steps in one launch.

    state: the arrays in program.json's order. It is donated: its memory is that of the result.
    """
    import jax
    step = jax.export.deserialize(bytearray(program.artifact)).call
    updates = program.about['updates']
    flags = np.zeros(program.about['flags'], np.float32)

    def one(state, batch_and_number):
        batch, number = batch_and_number
        outputs = step(*batch, number, np.bool_(True), flags, *state)
        loss, weight = (outputs[i] for i in program.about['loss'])
        new = list(state)
        for index, output in updates:
            new[index] = outputs[output]
        return new, loss / weight

    def launch(state, batches, first):
        numbers = first + np.arange(steps_per_call, dtype=np.int64)
        return jax.lax.scan(one, state, (batches, numbers))
    return jax.jit(launch, donate_argnums=0)


class Runner:
    """A program on jax's first device. Its steps are those from 0 on; beyond the saved batches they begin again."""

    def __init__(self, program, steps_per_call):
        import jax
        self._jax, self._program, self._count = jax, program, steps_per_call
        self._launch = compiled(program, steps_per_call)
        self.state = [jax.device_put(program.state[name]) for name in program.about['state']]
        self.step = 0

    def batches(self, first):
        """The batches of the steps of one launch, on their way to the device."""
        rows = np.arange(first, first + self._count) % self._program.steps
        return [self._jax.device_put(self._program.batches[name][rows]) for name in self._program.about['batch']]

    def __call__(self, batches=None):
        """Launches the next steps. Returns their losses, which may still be computed."""
        batches = self.batches(self.step) if batches is None else batches
        self.state, losses = self._launch(self.state, batches, np.int64(self.step))
        self.step += self._count
        return losses


def check(program):
    """Runs the saved steps one by one. Returns (losses, largest difference of a weight, where, seconds of the first).

    A difference is relative to the largest element of an array as the saving machine computed it. It is None where no
    weights were saved.
    """
    runner, losses, started = Runner(program, 1), [], time.perf_counter()
    for _ in range(program.steps):
        losses.append(float(runner()[0]))
        if len(losses) == 1:
            first = time.perf_counter() - started
    differences = {}
    for name, value in zip(program.about['state'], runner.state):
        if name in program.expected:
            there = program.expected[name].astype(np.float64)
            here = np.asarray(value).astype(np.float64)
            difference = float(np.abs(here - there).max(initial=0.) / max(np.abs(there).max(initial=0.), 1e-30))
            differences[name] = difference if math.isfinite(difference) else math.inf
    worst = max(differences, key=differences.get, default=None)
    return losses, differences.get(worst), worst, first


def measure(program, steps_per_call, seconds):
    """Trains for about `seconds`, as a run would: the next batches are sent while the device computes.

    Returns (seconds per step, seconds that the compiler took).
    """
    runner, started = Runner(program, steps_per_call), time.perf_counter()
    runner().block_until_ready()
    compile_seconds = time.perf_counter() - started
    for _ in range(2):
        losses = runner()
    losses.block_until_ready()
    batches, launches, started = runner.batches(runner.step), 0, time.perf_counter()
    while not launches or time.perf_counter() - started < seconds:
        before, losses = losses, runner(batches)
        batches = runner.batches(runner.step)
        before.block_until_ready()      # one launch ahead of the device, and no more
        launches += 1
    losses.block_until_ready()
    return (time.perf_counter() - started) / (launches * steps_per_call), compile_seconds


def report(program, steps_per_call, seconds):
    """{field: value} of a program on jax's first device."""
    import jax
    device, about = jax.devices()[0], program.about
    found = {'device': device.device_kind, 'platform': device.platform, 'jax': jax.__version__,
             **{key: about[key] for key in ('recipe', 'precision', 'batch_size', 'parameters', 'flops_per_step')}}
    if program.steps and about['losses']:
        losses, difference, worst, first = check(program)
        gaps = [abs(here - there) / max(abs(there), 1e-30) for here, there in zip(losses, about['losses'])
                if there is not None]       # the step was taken
        gap = max((gap if math.isfinite(gap) else math.inf for gap in gaps), default=0.)
        found |= {'checked_steps': program.steps, 'losses': losses, 'loss_max_rel_diff': gap,
                  'weights_max_rel_diff': difference, 'weights_differ_most': worst, 'first_step_seconds': first}
    step_seconds, compile_seconds = measure(program, steps_per_call, seconds)
    rate = about['flops_per_step'] / step_seconds
    peak = next((peaks.get(about['precision']) for kind, peaks in PEAKS.items() if re.search(kind, device.device_kind)),
                None)
    return found | {'steps_per_call': steps_per_call, 'compile_seconds': compile_seconds, 'step_seconds': step_seconds,
                    'examples_per_second': about['batch_size'] / step_seconds, 'flops_per_second': rate,
                    'peak_flops_per_second': peak, 'mfu': rate / peak if peak else None}


def text(found):
    """The report as lines for a person."""
    mfu = f', MFU {found["mfu"]:.1%}' if found['mfu'] else ''
    lines = [f'{found["recipe"]}, {found["precision"]}, batch {found["batch_size"]:,}, on {found["device"]} '
             f'({found["platform"]}, jax {found["jax"]})']
    if 'checked_steps' in found:
        worst = found['weights_max_rel_diff']
        weights = '' if worst is None else f', weights {worst:.1e} ({found["weights_differ_most"]})'
        lines.append(f'after {found["checked_steps"]} steps, largest relative difference from the machine that saved '
                     f'it: loss {found["loss_max_rel_diff"]:.1e}{weights}')
    lines.append(f'{1000 * found["step_seconds"]:.3f} ms per step, {found["examples_per_second"]:,.0f} examples/s, '
                 f'{found["flops_per_second"] / 1e12:.3f} TFLOP/s{mfu}; compiled in {found["compile_seconds"]:.1f} s')
    return '\n'.join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog='python -m strategies.program', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='folder of a saved program')
    parser.add_argument('--steps_per_call', type=int, default=10, help='steps in one launch (default: 10)')
    parser.add_argument('--seconds', type=float, default=5., help='duration of the measurement (default: 5)')
    parser.add_argument('--json', action='store_true', help='JSON output of the report')
    args = parser.parse_args(arguments)
    try:
        _check_arguments(args)
        program = read(args.folder)
        _open_jax()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return USAGE
    try:
        found = report(program, args.steps_per_call, args.seconds)
    except Exception as error:      # of jax's: it is too old for the artifact, which may be damaged, or memory lacks
        print(f'error: jax cannot run this program: {" ".join(str(error).split())[:300]} ({type(error).__name__})',
              file=sys.stderr)
        return FAILED
    print(json.dumps(found, indent=2) if args.json else text(found), flush=True)
    differences = [found.get(key) for key in ('loss_max_rel_diff', 'weights_max_rel_diff')]
    return FAILED if math.inf in differences else 0


def _check_arguments(args):
    if not 1 <= args.steps_per_call <= 10_000:
        raise UserError(f'`steps_per_call` must be from 1 to 10000. Received: steps_per_call={args.steps_per_call}')
    if not 0 < args.seconds <= 3600:
        raise UserError(f'`seconds` must be more than 0 and at most 3600. Received: seconds={args.seconds}')


def _open_jax():
    """Raises UserError where jax is missing or sees no device."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    try:
        import jax
        import jax.export  # noqa: F401
        jax.config.update('jax_enable_x64', True)      # step numbers and random keys are of 64 bits
        jax.devices()
    except ImportError as error:
        raise UserError('jax is needed to run a program: pip install jax, or jax[cuda13] or jax[tpu] for such a '
                        f'device. Received: {error}') from None
    except RuntimeError as error:
        raise UserError(f'jax finds no device. Received: {" ".join(str(error).split())[:300]}') from None


if __name__ == '__main__':
    sys.exit(main())
