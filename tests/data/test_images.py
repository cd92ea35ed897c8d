"""Augmentation against numpy; resizing and channels, the same in memory, from files and as served."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image as Picture
from PIL import ImageOps
from sklearn.datasets import load_sample_images

from data.dataset import Image, Label
from data.inputs import image_files
from data.inputs.augment import augment
from data.inputs.geometry import SHIFT
from data.inputs.images import decode_images, fit, match_channels, resize_by_products, resize_photographs
from data.source import Tensors
from draws import Draws
from tests.opened import one_source, task_of

IMAGES = np.random.RandomState(0).randint(1, 256, (64, 24, 36, 3)).astype(np.float32)


def noise_of(seed, step, batch_size):
    return Draws(seed, step).uniform('augment', (batch_size, 3)).numpy()


def augmented(name, step=5):
    return augment([name], tf.constant(IMAGES), Draws(7, step))[0].numpy()


def numpy_shift(image, down, right):
    """out[y, x] = image[y + down, x + right]; black where that lies outside."""
    padded = np.pad(image, ((24, 24), (36, 36), (0, 0)))
    return padded[24 + down:48 + down, 36 + right:72 + right]


def offsets(noise):
    return (np.round((2 * noise[:, i] - 1) * np.float32(SHIFT * side)).astype(int) for i, side in ((0, 24), (1, 36)))


def test_flip_is_a_mirror_of_about_half():
    mirrored = noise_of(7, 5, 64)[:, 2] < 0.5
    expected = np.where(mirrored[:, None, None, None], IMAGES[:, :, ::-1], IMAGES)
    np.testing.assert_array_equal(augmented('flip'), expected)
    assert 16 < mirrored.sum() < 48


def test_shift_moves_pixels():
    down, right = offsets(noise_of(7, 5, 64))
    expected = [numpy_shift(image, *by) for image, *by in zip(IMAGES, down, right)]
    np.testing.assert_array_equal(augmented('shift'), expected)
    assert (down.min(), down.max(), right.min(), right.max()) == (-2, 2, -3, 3)


def test_flip_shift_does_both():
    noise = noise_of(7, 5, 64)
    # The shift's columns are those of the mirrored image.
    images = [image[:, ::-1] if mirrored else image for image, mirrored in zip(IMAGES, noise[:, 2] < 0.5)]
    down, right = offsets(noise)
    signs = np.where(noise[:, 2] < 0.5, -1, 1)
    expected = [numpy_shift(image, d, s * r) for image, d, r, s in zip(images, down, right, signs)]
    np.testing.assert_array_equal(augmented('flip_shift'), expected)


def test_steps_differ():
    assert (augmented('flip_shift', 5) != augmented('flip_shift', 6)).any()


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('given', [1, 2, 3, 4])
def test_static_and_served_channels_agree(channels, given):
    images = tf.constant(np.random.RandomState(1).rand(2, 5, 7, given).astype(np.float32) * 255)
    served = tf.function(lambda x: fit(x, (6, 6, channels)), input_signature=[tf.TensorSpec([None] * 4, tf.float32)])
    expected = fit(images, (6, 6, channels))
    assert expected.shape == (2, 6, 6, channels)
    np.testing.assert_allclose(served(images), expected, atol=1e-3)
    if given < 3:
        np.testing.assert_array_equal(match_channels(images, channels), images[..., :1])    # grey stays exactly grey


@pytest.mark.parametrize('size', [(8, 8), (64, 64), (9, 30)])
def test_enlarging_is_the_same_whether_the_size_is_static(size):
    images = tf.random.stateless_uniform([4, 8, 8, 1], seed=[0, 0]) * 255
    served = tf.function(lambda x: fit(x, (*size, 1)), input_signature=[tf.TensorSpec([None] * 4, tf.float32)])
    np.testing.assert_allclose(served(images), fit(images, (*size, 1)), atol=1e-3)


@pytest.mark.parametrize('size', [(8, 8), (28, 28), (100, 80), (5, 200), (63, 129), (375, 500), (1, 1)])
@pytest.mark.parametrize('to', [(28, 28), (64, 48), (1, 3)])
def test_products_resize_as_tensorflow_does(size, to):
    images = tf.random.stateless_uniform([2, *size, 3], seed=[0, 0])
    served = tf.function(lambda x: resize_by_products(x, *to), input_signature=[tf.TensorSpec([None, None, None, 3])])
    np.testing.assert_allclose(served(images), tf.image.resize(images, to, antialias=True), atol=3e-5)


def test_shrinking_averages():
    checkers = np.indices((64, 64)).sum(axis=0) % 2 * 255.
    small = fit(tf.constant(checkers[None, :, :, None], tf.float32), (8, 8, 1)).numpy()
    np.testing.assert_allclose(small, 127.5, atol=2)


def test_inputs_are_in_0_to_1():
    white = Tensors(image=np.full([2, 4, 4, 1], 255, np.uint8), label=np.array([0, 1]))
    dataset = one_source(white, image=Image((4, 4, 1)), label=Label(('a', 'b')))
    task = task_of('classification', dataset, image_size=8, channels=3)
    x, y, weights = task.batch(task.rows(white).gather(tf.range(2, dtype=tf.int64)), Draws(0))
    np.testing.assert_allclose(x, np.ones((2, 8, 8, 3)), atol=1e-6)
    assert (y.dtype, weights.dtype, task.sizes) == (tf.int32, tf.float32, {'input_shape': (8, 8, 3), 'outputs': 2})


def test_decoded_files_and_arrays_give_the_same_input():
    photo = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    decoded = tf.function(decode_images, reduce_retracing=True)(tf.stack([tf.io.encode_png(photo)] * 2), (16, 16, 3))
    np.testing.assert_allclose(decoded[1], fit(photo[None], (16, 16, 3))[0], atol=1e-3)


def file_of(picture, format, **options):
    written = io.BytesIO()
    picture.save(written, format, **options)
    return written.getvalue()


def photo(mode='RGB'):
    """36 x 28 pixels; the pixels of RGBA vary in transparency."""
    pixels = np.random.RandomState(2).randint(0, 256, (7, 9, 4)).astype(np.uint8)
    return Picture.fromarray(pixels, 'RGBA').resize((36, 28), Picture.BICUBIC).convert(mode)


def palette(transparent=False):
    return file_of(photo().quantize(40), 'PNG', **{'transparency': 3} if transparent else {})


DEEP = np.random.RandomState(3).randint(0, 65536, (28, 36, 3)).astype(np.uint16)
FILES = {
    'grey JPEG': (file_of(photo('L'), 'JPEG'), 1), 'CMYK JPEG': (file_of(photo('CMYK'), 'JPEG'), 3),
    'colour JPEG': (file_of(photo(), 'JPEG'), 3), 'grey PNG': (file_of(photo('L'), 'PNG'), 1),
    'grey and alpha PNG': (file_of(photo('LA'), 'PNG'), 2), 'alpha PNG': (file_of(photo('RGBA'), 'PNG'), 4),
    'palette PNG': (palette(), 3), 'transparent palette PNG': (palette(True), 4),
    '16-bit PNG': (tf.io.encode_png(DEEP).numpy(), 3), '16-bit grey PNG': (tf.io.encode_png(DEEP[..., :1]).numpy(), 1),
    'GIF': (file_of(photo(), 'GIF'), 3), 'BMP': (file_of(photo(), 'BMP'), 3),
    'WebP': (file_of(photo(), 'WEBP'), 3), 'alpha WebP': (file_of(photo('RGBA'), 'WEBP'), 4),
}


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', FILES)
def test_every_format_is_decoded_then_resized(name, channels):
    """Colour is made grey, and grey colour, as by the same steps on the whole picture in float32.

    28x36 pixels are not more than four times 16x16: a JPEG is interpolated there, and antialiased to 20x50.
    """
    encoded, given = FILES[name]
    image = tf.cast(tf.io.decode_image(encoded, expand_animations=False), tf.float32)
    assert image.shape == (28, 36, given)
    image = image[..., :1] if given < 3 else image[..., :3]
    image = tf.image.rgb_to_grayscale(image) if (channels, image.shape[2]) == (1, 3) else image
    image = tf.repeat(image, channels // image.shape[2], axis=2)
    for size in ((16, 16), (28, 36), (20, 50)):
        expected = tf.image.resize(image, size, antialias='JPEG' not in name or size != (16, 16))
        np.testing.assert_allclose(decode_images(tf.constant([encoded]), (*size, channels))[0], expected, atol=1e-4)


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_photograph_is_turned_upright(orientation, order):
    exif = Picture.Exif()
    exif.endian = order
    exif.update({0x10f: 'a camera', 0x112: orientation, 0x8298: 'a person'})
    encoded = file_of(photo(), 'JPEG', exif=exif, quality=95)
    assert (b'Exif\0\0II' if order == '<' else b'Exif\0\0MM') in encoded
    lying = Picture.fromarray(tf.io.decode_jpeg(encoded).numpy())     # TensorFlow's pixels: decoders differ
    lying.getexif()[0x112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(lying))
    np.testing.assert_array_equal(image_files.decode(encoded), expected)
    served = tf.function(decode_images, reduce_retracing=True)(tf.constant([encoded]), (16, 16, 3))
    np.testing.assert_array_equal(served, tf.image.resize(expected[None], (16, 16)))


def landscape(height, width, seed=0):
    """uint8 [height, width, 3]: noise of low frequencies with an edge."""
    random = np.random.RandomState(seed)
    noise = sum(share * tf.image.resize(random.uniform(-1, 1, (side, side, 3)), (height, width), 'bicubic')
                for side, share in ((5, 0.7), (20, 0.4), (80, 0.2))).numpy()
    noise[height // 3:, width // 2:] *= -1
    return np.clip(128 + 128 * noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize('orientation', [1, 6])
@pytest.mark.parametrize('size, ratio', [
    ((200, 260), 1), ((188, 250), 1), ((187, 250), 2), ((112, 112), 2), ((94, 94), 2), ((93, 125), 4), ((64, 64), 4),
    ((46, 62), 8), ((1, 1), 8), ((400, 10), 1)])
def test_a_jpeg_is_decoded_by_the_largest_ratio_that_leaves_enough_pixels(size, ratio, orientation):
    exif = Picture.Exif()
    exif[0x112] = orientation
    encoded = file_of(Picture.fromarray(landscape(375, 500)), 'JPEG', exif=exif)
    size = size if orientation == 1 else size[::-1]
    image, chosen = tf.function(image_files.decode_jpeg_near)(
        tf.constant(encoded), tf.constant(orientation), size, 3)
    assert chosen == ratio
    expected = tf.io.decode_jpeg(encoded, ratio=ratio)
    np.testing.assert_array_equal(image, expected if orientation == 1 else tf.reverse(
        tf.transpose(expected, [1, 0, 2]), [1]))


@pytest.mark.parametrize('shape', [(375, 500), (500, 375), (427, 640)])
@pytest.mark.parametrize('size, bound', [(64, 2.5), (112, 3), (128, 3.5), (160, 4), (224, 5.5)])
def test_a_photograph_is_nearly_what_an_antialiased_resize_of_all_its_pixels_gives(shape, size, bound):
    """Two of scikit-learn: leaves of trees, which differ most, and a flower out of a blurred ground."""
    for photograph, times in zip(load_sample_images().images, (1, 0.7), strict=True):
        scaled = Picture.fromarray(photograph).resize(shape[::-1], Picture.LANCZOS)
        encoded = tf.io.encode_jpeg(np.asarray(scaled), quality=80)
        image = tf.io.decode_jpeg(encoded)[None]
        expected = tf.image.resize(image, (size, size), antialias=True)

        def difference(other):
            return float(tf.reduce_mean(tf.abs(other - expected)))
        found = difference(decode_images(encoded[None], (size, size, 3)))
        assert found < times * bound
        if times == 1 and size < 160:      # of what plain interpolation of all pixels loses, a fraction
            assert found < 0.6 * difference(tf.image.resize(image, (size, size)))


def test_photographs_of_a_batch_do_not_see_each_other():
    files = [tf.io.encode_jpeg(landscape(*shape)) for shape in ((375, 500), (40, 30), (1000, 1200))]
    files.append(tf.io.encode_png(landscape(60, 60)))
    together = tf.function(decode_images)(tf.stack(files), (64, 64, 3))
    for file, image in zip(files, together):
        np.testing.assert_array_equal(tf.function(decode_images)(file[None], (64, 64, 3))[0], image)


def test_interpolation_and_means_of_areas_meet_at_half_the_size():
    """Both are the mean of 2x2 pixels there."""
    images = tf.constant(landscape(64, 80)[None])
    near, far = (resize_photographs(images, 32, 40, ratio) for ratio in (1, 2))
    np.testing.assert_allclose(near, far, atol=1e-3)


def segment(kind, content):
    return b'\xff' + bytes([kind]) + (len(content) + 2).to_bytes(2, 'big') + content


TIFF = b'MM\0*\0\0\0\x08\0\1' + b'\1\x12\0\3\0\0\0\1\0\6\0\0' + bytes(4)      # one tag: orientation 6


@pytest.mark.parametrize('before, expected', [
    (segment(0xe1, b'http://ns.adobe.com/xap/1.0/\0<x/>') + segment(0xfe, b'a comment'), 6),
    (segment(0xe2, bytes(65533)) * 2, 6),
    (segment(0xe1, b'Exif\0\0'), 1), (segment(0xe1, b'Exif\0\0II'), 1), (segment(0xe1, b'Exif\0\0' + TIFF[:16]), 1),
    (segment(0xe1, b'Exif\0\0' + TIFF.replace(b'\0\x08', b'\xff\xff')), 1),
    (segment(0xe1, b'Exif\0\0' + TIFF.replace(b'\0\0\0\x08', b'\xff\xff\xff\xff')), 1),
    (segment(0xe1, b'Exif\0\0' + TIFF.replace(b'\0\6\0', b'\0\x09\0')), 1),
    (segment(0xe1, b'Exif\0\0' + TIFF.replace(b'\x08\0\1', b'\x08\xff\xff')), 6),
])
def test_exif_data_are_found_behind_others_and_broken_ones_are_passed_over(before, expected):
    plain = file_of(photo(), 'JPEG')
    encoded = plain[:2] + before + segment(0xe1, b'Exif\0\0' + TIFF) + plain[2:]
    assert image_files.orientation(tf.constant(encoded)) == expected
    assert image_files.decode(encoded).shape == ((36, 28, 3) if expected == 6 else (28, 36, 3))
    assert image_files.orientation(tf.constant(plain)) == 1


@pytest.mark.parametrize('cut', [0, 2, 3, 4, 8, 10, 12, 20, 28, 60])
@pytest.mark.parametrize('kind', ['JPEG', 'WEBP'])
def test_a_cut_file_is_an_error_of_the_decoder(kind, cut):
    encoded = file_of(photo(), kind, exif=b'Exif\0\0' + TIFF)[:cut]
    with pytest.raises(tf.errors.InvalidArgumentError, match='decode|JPEG|Input is empty|format|WebP'):
        image_files.decode(encoded)


@pytest.mark.parametrize('mode', ['RGB', 'RGBA'])
@pytest.mark.parametrize('format', ['GIF', 'WEBP'])
def test_an_animation_gives_its_first_picture(format, mode):
    """TensorFlow 2.21 alone overwrites memory that is not its own for an animated WebP without transparency."""
    pictures = [photo(mode), ImageOps.mirror(photo(mode))]
    encoded = file_of(pictures[0], format, save_all=True, append_images=pictures[1:], lossless=True)
    first = np.asarray(Picture.open(io.BytesIO(encoded)).convert(mode))
    for _ in range(20):
        decoded = image_files.decode(encoded)
    np.testing.assert_array_equal(decoded[..., :3], first[..., :3])
