"""Serialised protobuf messages without their classes: sentencepiece's load only beside some versions of protobuf."""


def without(message, number, *inner):
    """A message without one of its fields: its number, or numbers from the outermost message to the innermost."""
    kept = []
    for field, begin, content, end in _fields(message):
        if field != number:
            kept.append(message[begin:end])
        elif inner:
            part = without(message[content:end], *inner)
            kept.append(_varint(number << 3 | 2) + _varint(len(part)) + part)
    return b''.join(kept)


def _fields(message):
    """(number, where the field begins, where its content does, where both end) of each field."""
    at = 0
    while at < len(message):
        begin = at
        key, at = _read_varint(message, at)
        value, content = _read_varint(message, at)
        at = {0: content, 1: at + 8, 2: content + value, 5: at + 4}[key & 7]     # by the field's wire type
        yield key >> 3, begin, content, at


def _read_varint(message, at):
    value = shift = 0
    while True:
        byte, at = message[at], at + 1
        value, shift = value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at


def _varint(value):
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])
