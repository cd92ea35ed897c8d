"""The real TPU compiler, without a TPU: TensorFlow lowers a step to HLO, jaxlib carries it to StableHLO, and libtpu,
opened for a topology that is not there, compiles what jax makes of it.

What differs from a TPU machine: TensorFlow lowers for its CPU device (the same operations, in XLA's terms), and the
compiler is that of this libtpu, newer than the one that a tensorflow-tpu wheel brings.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import re
import time

import numpy as np
import tensorflow as tf

from errors import RunError, UserError
from strategies import graphs, tpu_rules
from strategies.preflight.arrays import shapes
from strategies.preflight.fingerprint import fingerprint

EXTRA = 'pip install -e ".[tpu]"'
# libtpu's two ways to say so; in the second the arguments are not counted, so that it says the least that is needed.
TOO_LARGE = (r'Used ([\d.]+)([BKMGT]?) of ([\d.]+)([BKMGT]?) hbm',
             r'HLO temporaries \(([\d.]+)([BKMGT]?)\) exceeds available HBM \(([\d.]+)([BKMGT]?)\)')
SIZES = {'': 1, 'B': 1, 'K': 2 ** 10, 'M': 2 ** 20, 'G': 2 ** 30, 'T': 2 ** 40}
# libtpu asks a metadata server, for minutes, unless it is told what machine it is on.
NO_MACHINE = {'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
              'TPU_WORKER_ID': '0', 'JAX_PLATFORMS': 'cpu',
              'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}      # it guards chips that only one process can drive; there are none


class CannotCompile(RunError):
    """The step is not a program for a TPU. The message names the operation and the line of source."""


class DoesNotFit(RunError):
    """The program needs more memory than a chip has. needed, limit: bytes per chip."""

    def __init__(self, needed, limit):
        gib = 2 ** 30
        super().__init__(f'the program needs at least {needed / gib:.2f} GiB per chip, '
                         f'{(needed - limit) / gib:.2f} GiB more than the {limit / gib:.2f} GiB that it can use')
        self.needed, self.limit = needed, limit


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A step in XLA's terms."""
    hlo: bytes              # serialized
    captured: tuple         # the variables, and other tensors, that follow the arguments among its inputs
    arguments: int          # how many of the inputs are arguments

    @functools.cached_property
    def fingerprint(self):
        """16 hexadecimal digits, the same for the same program: see fingerprint.py."""
        return fingerprint(self.hlo)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program, of one chip. Memory in bytes."""
    text: str               # scheduled HLO
    arguments: int          # what it is given: weights, optimizer slots, batches
    temporaries: int        # what it keeps meanwhile: activations
    outputs: int            # what it gives beside what is donated to it: the updated variables, in the old ones' place
    code: int
    seconds: float          # that the compiler took

    @property
    def argument_sizes(self):
        """Of each argument, with the padding of tiles."""
        layouts = self.text.partition('entry_computation_layout={(')[2].partition(')->')[0]
        return [shape.padded_bytes for shape in shapes(layouts)]

    @property
    def memory(self):
        return self.arguments + self.temporaries + self.outputs + self.code


def without_devices():
    """Before jax is imported: it looks for no TPU and no GPU."""
    for name, value in NO_MACHINE.items():
        os.environ.setdefault(name, value)


def open_topology(topology):
    """The chips of a `topologies.Topology`, as a jax mesh of one axis, `replica`, that can be compiled for.

    Raises:
        UserError: jax or libtpu is missing, or they do not fit together.
    """
    without_devices()
    try:
        import jax
        import libtpu  # noqa: F401
        from jax.experimental import topologies
    except ImportError as error:
        raise UserError(f'preflight needs jax and libtpu, the TPU compiler: {EXTRA}. Received: {error}') from None
    jax.config.update('jax_enable_x64', True)      # step numbers and random keys are of 64 bits
    try:
        slice_ = topologies.get_topology_desc(platform='tpu', topology_name=topology.name, **topology.options)
        return jax.sharding.Mesh(np.array(slice_.devices), ('replica',))
    except Exception as error:     # jaxlib has no public type for it
        raise UserError(f'libtpu {_version("libtpu")} with jax {_version("jax")} cannot open {topology.name}: '
                        f'{_first_line(error)}. Tested together: {EXTRA}') from None


def lower(step, *arguments):
    """A function of one replica, and its arguments as nested TensorSpecs -> Lowered.

    Raises:
        CannotCompile: a TPU could not run it.
    """
    def flat(*tensors):
        return step(*tf.nest.pack_sequence_as(arguments, tensors))

    # Specs, and flat: TensorFlow takes no other form without tensors, and a large batch need not exist anywhere.
    program, specs = tf.function(flat, jit_compile=True), tf.nest.flatten(arguments)
    traced = program.get_concrete_function(*specs)
    graph = traced.graph
    if found := tpu_rules.violations(graph):
        raise CannotCompile(str(found[0]))
    try:
        hlo = program.experimental_get_compiler_ir(*specs)(stage='hlo_serialized')
    except (tf.errors.OpError, ValueError) as error:      # ValueError is what the IR's own errors come as
        raise CannotCompile(_located(graph, str(error))) from None
    variables = {id(variable.handle): variable for variable in graph.variables}
    captured = tuple(variables.get(id(tensor), tensor) for tensor in traced.captured_inputs)
    return Lowered(hlo, captured, len(specs))


def compile(function, *arguments):
    """Compiles a jax function for the devices that its arguments, jax.ShapeDtypeStructs, lie on. Returns a Program.

    Raises:
        DoesNotFit: it needs more memory than a chip has. CannotCompile: for any other reason.
        UserError: this libtpu does not understand this jax.
    """
    import jax
    lowered, started = function.lower(*arguments), time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise _explained(error) from None
    memory = compiled.memory_analysis()
    return Program(text=compiled.as_text(), arguments=memory.argument_size_in_bytes,
                   temporaries=memory.temp_size_in_bytes, code=memory.generated_code_size_in_bytes,
                   outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
                   seconds=time.perf_counter() - started)


@contextlib.contextmanager
def stablehlo(hlo):
    """While it is open: serialized HLO as a module of StableHLO."""
    from jax._src.interpreters import mlir
    from jaxlib import _jax
    from jaxlib.mlir import ir
    with mlir.make_ir_context():
        module = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(hlo))
        for copy in list(operations(module.operation, 'mhlo.copy')):      # which libtpu refuses, and nothing needs
            copy.results[0].replace_all_uses_with(copy.operands[0])
            copy.erase()
        yield module


def operations(operation, name):
    """All operations of a name within an operation."""
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield from operations(inner.operation, name)
                if inner.operation.name == name:
                    yield inner.operation


def _explained(error):
    for form in TOO_LARGE:
        if found := re.search(form, str(error)):
            needed, needed_unit, limit, limit_unit = found.groups()
            return DoesNotFit(int(float(needed) * SIZES[needed_unit]), int(float(limit) * SIZES[limit_unit]))
    # How jax hands programs over: in dialects that it versions.
    if re.search("in dialect \\('vhlo'\\)|versioned StableHLO|bytecode interface", str(error)):
        return UserError(f'libtpu {_version("libtpu")} is too old for programs of jax {_version("jax")}: {EXTRA}. '
                         f'Received: {_first_line(error)}')
    return CannotCompile(f'the TPU compiler refuses the step: {_first_line(error)}')


def _located(graph, message):
    """TensorFlow's message in one line, with the line of source of the operation that it names."""
    named = re.search(r'\{\{node ([^}]+)\}\}', message)
    op = _find(graph, named.group(1)) if named else None
    source = tpu_rules.source_line(op) if op else ''
    return _first_line(message) + (f' ({source})' if source else '')


def _find(graph, name):
    for op in graph.get_operations():
        if op.name == name:
            return op
        for function in graphs.called_functions(op):
            body = graphs.function_graph(graph, function)
            if body is not None and (found := _find(body, name)):
                return found
    return None


def _first_line(error):
    return ' '.join(str(error).strip().split('\n')[0].split())[:300]


def _version(package):
    return importlib.metadata.version(package)
