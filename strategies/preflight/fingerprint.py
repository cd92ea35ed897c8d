"""A fingerprint of a step as TensorFlow lowers it: the same for the same program, whoever made it and wherever."""

import hashlib

from tensorflow.compiler.xla.service import hlo_pb2

DIGITS = 16
# What tells instructions apart, and says where they come from. What they refer to is hashed in place of its number.
NAMES = ('name', 'id', 'metadata', 'operand_ids', 'control_predecessor_ids', 'called_computation_ids', 'channel_id',
         'all_reduce_id', 'original_value', 'statistics_viz')


def fingerprint(hlo):
    """Serialized HLO -> 16 hexadecimal digits.

    Equal where two programs compute the same by the same operations in the same types and shapes; names, numbers,
    the order in which they are written and lines of source do not count. Other versions of TensorFlow lower otherwise.
    """
    module = hlo_pb2.HloModuleProto.FromString(hlo)
    hashes = {}      # of computations, those that are called before those that call
    for computation in module.computations:
        hashes[computation.id] = _hash_computation(computation, hashes)
    aliases = module.input_output_alias.SerializeToString(deterministic=True)
    return _hash(hashes[module.entry_computation_id], aliases).hex()[:DIGITS]


def _hash_computation(computation, called):
    """Of what it returns, and of what nothing in it uses: an input, for one."""
    hashes, unused = {}, set()
    for instruction in computation.instructions:
        mine, operands = instruction.id, [*instruction.operand_ids, *instruction.control_predecessor_ids]
        parts = [hashes[i] for i in operands] + [called[i] for i in instruction.called_computation_ids]
        unused -= set(operands)
        unused.add(mine)
        for name in NAMES:
            if name in instruction.DESCRIPTOR.fields_by_name:
                instruction.ClearField(name)
        hashes[mine] = _hash(instruction.SerializeToString(deterministic=True), *parts)
    return _hash(hashes[computation.root_id], *sorted(hashes[i] for i in unused))


def _hash(*parts):
    """sha256 of bytes, each with its length: no two lists of parts give the same."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, 'little') + part)
    return whole.digest()
