"""The bytes of image files -> upright pixels.

Core TensorFlow operations only, so that a served model reads files as training does. FORMATS are told by content, not
by name. Letters of shapes: a picture of h x w pixels and c channels.
"""

import tensorflow as tf

FORMATS = 'JPEG, PNG, BMP, GIF or WebP'
SIGNATURES = (b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'BM', b'GIF87a', b'GIF89a', b'RIFF')
ALPHA, ANIMATION = 16, 2             # bits of the 21st byte of a WebP file
MARKED = [bytes([flags | ALPHA if flags & ANIMATION else flags]) for flags in range(256)]
ORIENTATION = 0x112                  # Exif's tag
RATIOS = (1, 2, 4, 8)                # by which a JPEG decoder can shrink while it decodes


def has_known_format(start):
    """Whether the first 16 bytes of a file are those of one of FORMATS."""
    return start.startswith(SIGNATURES) and (start[:4] != b'RIFF' or start[8:12] == b'WEBP')


def is_jpeg(file):
    return tf.strings.substr(file, 0, 3) == b'\xff\xd8\xff'


def is_png(file):
    return tf.strings.substr(file, 0, 4) == b'\x89PNG'


def decode(file):
    """The bytes of a file of one of FORMATS -> uint8 [h, w, c]. An animation gives its first picture.

    Raises:
        tf.errors.InvalidArgumentError: it is none of them, or broken.
    """
    return tf.cond(is_jpeg(file), lambda: decode_jpeg(file), lambda: decode_other(file))


def decode_jpeg(file, channels=0):
    """JPEG -> uint8 [h, w, c], turned upright as its Exif data say. channels: 1 or 3; 0 keeps those of the file."""
    image = tf.io.decode_jpeg(file, channels=channels)
    return turn(image, orientation(file))


def decode_jpeg_near(file, turned, size, channels=0):
    """`decode_jpeg` at the largest of RATIOS that leaves at least `size`, (height, width).

    The decoder computes fewer values from each block of the cosine transform, about the means of 2x2, 4x4 or 8x8
    pixels. turned: the file's `orientation`. Returns uint8 [h, w, c] and the ratio.
    """
    shape = tf.image.extract_jpeg_shape(file)[:2]
    shape = tf.where(turned > 4, shape[::-1], shape)
    is_enough = tf.reduce_all(shape // tf.constant(RATIOS)[:, None] >= size, axis=1)     # [ratio]
    index = tf.reduce_sum(tf.cast(is_enough[1:], tf.int32))
    image = tf.switch_case(index, [lambda ratio=ratio: tf.io.decode_jpeg(file, channels=channels, ratio=ratio)
                                   for ratio in RATIOS])
    return turn(image, turned), tf.gather(RATIOS, index)


def decode_other(file, channels=0):
    """PNG, BMP, GIF or WebP -> uint8 [h, w, c]. channels: 3, or 0 for those of the file."""
    def decoded():
        image = tf.io.decode_image(_mark_animation(file), expand_animations=False)
        return tf.ensure_shape(image, [None, None, None])
    if not channels:
        return decoded()
    # By its decoder at once: to pick three of unknown channels takes 1 ms of 375x500 pixels.
    return tf.cond(is_png(file), lambda: tf.io.decode_png(file, channels=channels),
                   lambda: with_three_channels(decoded()))


def with_three_channels(image):
    """uint8 [h, w, c], c unknown -> [h, w, 3]: drops alpha, repeats grey."""
    return tf.gather(image, tf.where(tf.shape(image)[2] < 3, [0, 0, 0], [0, 1, 2]), axis=2)


def sizes_of(images, field):
    """A source's images, of the kind of a field -> int32 [B, 2], height and width, upright."""
    if not field.encoded:
        return tf.tile([field.shape[:2]], [tf.shape(images)[0], 1])

    def size(file):
        def jpeg():
            shape = tf.io.extract_jpeg_shape(file)[:2]
            return tf.where(orientation(file) > 4, shape[::-1], shape)
        return tf.cond(is_jpeg(file), jpeg, lambda: tf.shape(decode_other(file))[:2])
    return tf.map_fn(size, images, fn_output_signature=tf.TensorSpec([2], tf.int32))


def _mark_animation(file):
    """An animated WebP is marked as one with transparency; other bytes are returned as they are.

    TensorFlow 2.21 decodes an animation to four channels, but reserves memory for three where the file is not marked:
    it overwrites what lies behind, and the process dies.
    """
    def marked():
        flags = tf.io.decode_raw(tf.strings.substr(file, 20, 1), tf.uint8)[0]
        return tf.strings.join([tf.strings.substr(file, 0, 20), tf.gather(MARKED, tf.cast(flags, tf.int32)),
                                tf.strings.substr(file, 21, tf.strings.length(file) - 21)])
    is_extended = tf.strings.regex_full_match(tf.strings.substr(file, 0, 21), r'RIFF\C{4}WEBPVP8X\C{5}')
    return tf.cond(is_extended, marked, lambda: file)


def turn(image, orientation):
    """Undoes Exif's orientation, 1 to 8: [h, w, c] -> [h, w, c], or [w, h, c] for 5 to 8."""
    def turned():
        upright = tf.cond(orientation > 4, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        is_mirrored = tf.bitwise.bitwise_and([orientation - 1, orientation], 2) > 0      # 3, 4, 7, 8 and 2, 3, 6, 7
        return tf.reverse(upright, tf.boolean_mask([0, 1], is_mirrored))
    return tf.cond(orientation > 1, turned, lambda: image)


def orientations(files):
    """int32 [B], `orientation` of each; 1 of what is no JPEG.

    A batch without Exif data is not gone through file by file, which takes 0.01 ms each.
    """
    files = tf.where(is_jpeg(files), files, '')
    return tf.cond(tf.reduce_any(tf.strings.length(files) > _place(files)),
                   lambda: tf.map_fn(orientation, files, fn_output_signature=tf.TensorSpec([], tf.int32)),
                   lambda: tf.ones_like(files, tf.int32))


def orientation(file):
    """int32, 1 to 8: how the bytes of a JPEG file say that its picture lies. 1 is upright, and what no Exif data mean.

    Exif data are in a segment before the picture: FF E1, its length in two bytes, `Exif`. To search for these letters
    takes 0.01 ms per file; a walk from segment to segment in a graph takes 0.4 ms.
    """
    place = _place(file)

    def tag():
        start = tf.io.decode_raw(tf.strings.substr(file, tf.maximum(place - 4, 0), 4), tf.uint8, fixed_length=4)
        length = 256 * tf.cast(start[2], tf.int32) + tf.cast(start[3], tf.int32)      # counts its own two bytes
        found = _orientation_tag(tf.strings.substr(file, place + 6, tf.maximum(length - 8, 0)))
        return tf.where(tf.reduce_all(start[:2] == [0xff, 0xe1]), found, 1)
    return tf.cond(place < tf.strings.length(file), tag, lambda: 1)


def _place(file):
    """Where Exif data begin: string [...] -> int32 [...], the length of a file that has none."""
    return tf.strings.length(tf.strings.regex_replace(file, r'Exif\x00\x00\C*', '', replace_global=False))


def _orientation_tag(tiff):
    """string, Exif's data -> int32. A byte order, 4 bytes on is the place of a table; a tag has 12 bytes there."""
    data = tf.cast(tf.concat([tf.io.decode_raw(tiff, tf.uint8), [0]], axis=0), tf.int64)     # 0 is read beyond the end
    is_little, last = data[0] == ord('I'), tf.size(data, tf.int64) - 1

    def number(places, size):
        order = tf.range(size, dtype=tf.int64)
        places = places[..., None] + tf.where(is_little, order, size - 1 - order)
        return tf.reduce_sum(tf.gather(data, tf.minimum(places, last)) * 256 ** order, axis=-1)

    table = number(tf.constant(4, tf.int64), 4)
    tags = table + 2 + 12 * tf.range(number(table, 2))
    found = tf.boolean_mask(number(tags + 8, 2), number(tags, 2) == ORIENTATION)
    value = tf.cast(tf.concat([found, [1]], axis=0)[0], tf.int32)
    return tf.where((value >= 1) & (value <= 8), value, 1)
