"""From HLO, as TensorFlow lowers a step, to a portable artifact that a later jax runs on another kind of device."""

import dataclasses
import re

from errors import UserError
from strategies.preflight import compiler

TYPES = {'i1': 'bool', 'i8': 'int8', 'i16': 'int16', 'i32': 'int32', 'i64': 'int64', 'ui8': 'uint8', 'ui16': 'uint16',
         'ui32': 'uint32', 'ui64': 'uint64', 'f16': 'float16', 'bf16': 'bfloat16', 'f32': 'float32', 'f64': 'float64'}
PRODUCTS = ('stablehlo.dot', 'stablehlo.dot_general', 'stablehlo.convolution')


def need_jax():
    """Before `portable`. Raises UserError where jax is missing."""
    compiler.without_devices()
    try:
        import jax
        import jax.export  # noqa: F401
    except ImportError as error:
        raise UserError(f'saving a program needs jax: {compiler.EXTRA}. Received: {error}') from None
    jax.config.update('jax_enable_x64', True)      # step numbers and random keys are of 64 bits


def portable(hlo, exact=False):
    """Serialized HLO of one replica -> (artifact, {input: output}).

    Args:
        exact: whether products of float32 are of float32 everywhere; else as a device likes: TensorFloat-32 on a GPU,
            bfloat16 on a TPU.

    Returns:
        What jax.export.deserialize reads, a function of the flat inputs to the flat outputs; and by number which
        output takes the place of which input.

    Raises:
        CannotCompile: an operation is one of this machine's own library.
    """
    function, replaced = exported(hlo, exact)
    return bytes(function.serialize()), replaced


def exported(hlo, exact=False):
    """As `portable`, before it is serialized: a jax.export.Exported.

    Where the HLO is of several replicas, they are the devices of a mesh within jax.shard_map: jax numbers them as the
    partitions of one replica.
    """
    import jax
    from jaxlib.mlir.dialects import stablehlo
    with compiler.stablehlo(hlo) as module:
        _refuse_foreign(module)
        if exact:
            _make_exact(module)
        _number_by_partition(module)
        [main] = [op for op in module.body.operations if op.attributes['sym_name'].value == 'main']
        inputs, outputs = ([_aval(t) for t in types] for types in (main.type.inputs, main.type.results))
        replaced = _replaced(module)
        version = stablehlo.get_version_from_compatibility_requirement(
            stablehlo.StablehloCompatibilityRequirement.WEEK_12)
        body = stablehlo.serialize_portable_artifact(module, version)
    # jax makes the frame, of a function with these inputs and outputs; what is in it is ours.
    frame = jax.export.export(
        jax.jit(lambda *_: tuple(jax.numpy.zeros(a.shape, a.dtype) for a in outputs), keep_unused=True),
        disabled_checks=[jax.export.DisabledSafetyCheck.platform()])(*inputs)
    return dataclasses.replace(frame, mlir_module_serialized=body), replaced


def _number_by_partition(module):
    """Replicas -> partitions, in the operations of strategies/preflight/replicas.py."""
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo
    for channel, reduction in enumerate(compiler.operations(module.operation, 'stablehlo.all_reduce'), start=1):
        reduction.attributes['channel_handle'] = ir.Attribute.parse(
            f'#stablehlo.channel_handle<handle = {channel}, type = 1>')
        reduction.attributes['use_global_device_ids'] = ir.UnitAttr.get()
    for number in list(compiler.operations(module.operation, 'stablehlo.replica_id')):
        with ir.InsertionPoint(number):
            partition = stablehlo.PartitionIdOp(loc=number.location)
        number.results[0].replace_all_uses_with(partition.results[0])
        number.erase()


def _aval(ranked):
    import jax
    return jax.ShapeDtypeStruct(ranked.shape, jax.numpy.dtype(TYPES[str(ranked.element_type)]))


def _replaced(module):
    """{number of an input: number of the output that is its new value}, of the module's attribute of aliases."""
    pairs = re.findall(r'parameter_number = (\d+) : i64\}, output_index = array<i64: (\d+)>',
                       str(module.operation.attributes['mhlo.input_output_alias']))
    return {int(parameter): int(output) for parameter, output in pairs}


def _refuse_foreign(module):
    for call in compiler.operations(module.operation, 'stablehlo.custom_call'):
        raise compiler.CannotCompile(f'the step calls {call.attributes["call_target_name"]}, '
                                     'which this machine alone has')


def _make_exact(module):
    from jaxlib.mlir import ir
    for kind in PRODUCTS:
        for product in compiler.operations(module.operation, kind):
            highest = ir.Attribute.parse('#stablehlo<precision HIGHEST>')
            product.attributes['precision_config'] = ir.ArrayAttr.get([highest, highest])
