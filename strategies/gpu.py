"""What TensorFlow is told about GPUs before it uses them, and what is read from them."""

import ctypes

import tensorflow as tf

BFLOAT16 = (8, 0)       # compute capability of the first GPUs with units for it, Ampere
# Of a card's memory, what virtual devices get together. The rest is for the context and the libraries of CUDA.
SHARED = 0.9
UNKNOWN = 2048          # MiB for each virtual device of a card whose memory cannot be read


def visible():
    """The physical GPUs that TensorFlow sees."""
    return tf.config.list_physical_devices('GPU')


def grow_memory():
    """Makes this process take memory of all GPUs as it needs it, so that others can use them too."""
    for gpu in visible():
        tf.config.experimental.set_memory_growth(gpu, True)


def have_bfloat16():
    """Whether all GPUs have units for bfloat16; of one that does not tell its compute capability, False."""
    found = [tf.config.experimental.get_device_details(gpu).get('compute_capability', (0, 0)) for gpu in visible()]
    return bool(found) and min(found) >= BFLOAT16


def share(count):
    """MiB of the first GPU for each of `count` virtual devices. TensorFlow must be told: it splits nothing itself."""
    total = card_memory()
    return int(SHARED * total / count) >> 20 if total else UNKNOWN


def card_memory(library='libcuda.so.1'):
    """Bytes of memory of the first GPU of this process, from the driver; None if the driver does not say."""
    try:
        cuda = ctypes.CDLL(library)
        device, total = ctypes.c_int(), ctypes.c_size_t()
        calls = (cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), 0),
                 cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device))
    except (OSError, AttributeError):       # no NVIDIA driver, or one without this function
        return None
    return None if any(calls) else total.value
