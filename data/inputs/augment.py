"""Random changes of a batch of training images: names, their order, and the one function that applies them.

Each is a function of (seed, step, row), so rows never look at each other. In this order, whatever order is given:
what moves pixels (geometry.py, trivial.py), what changes colours (colour.py, trivial.py), erasing, mixing (mixing.py).
"""

from data.inputs import trivial
from data.inputs.boxes import move_boxes, remove_lost
from data.inputs.colour import color_jitter
from data.inputs.geometry import MOVES, Move, move_images, move_mask
from data.inputs.mixing import erase
from errors import UserError, lookup

# trivial_augment is in two of these, which draw the same operation: an image goes through one of them.
MOVING = MOVES | {'trivial_augment': Move(trivial.transform, 'BILINEAR')}
CHANGING = {'color_jitter': color_jitter, 'trivial_augment': trivial.colours, 'erase': erase}
MIXING = ('mixup', 'cutmix')
ORDER = (*MOVING, *(name for name in CHANGING if name not in MOVING), *MIXING)


def ordered(names):
    """Names, in a sequence or with commas between them as in a recipe -> a tuple of them in ORDER. 'none' is none.

    Raises:
        UserError: one is unknown.
    """
    names = names.split(',') if isinstance(names, str) else names
    for name in names:
        lookup(dict.fromkeys(('none', *ORDER)), name, 'augment')
    return tuple(name for name in ORDER if name in names)


def check(names, has_boxes_or_mask):
    """Raises UserError where images are to be mixed that have boxes or masks, which cannot be."""
    mixing = [name for name in ordered(names) if name in MIXING]
    if has_boxes_or_mask and mixing:
        raise UserError(f'`augment` must not mix images that have boxes or masks: {" and ".join(MIXING)} are for '
                        f'classification. Received: augment={",".join(mixing)!r}')


def augment(names, images, draws, boxes=None, mask=None):
    """Applies all but those of MIXING, which need a second image, see mixing.mix.

    Args:
        names: as `ordered` takes them.
        images: float32 [b, H, W, C] in 0 to 1, of a static shape. draws: a draws.Draws of these rows.
        boxes: float32 [b, M, 6], see data.dataset.Boxes, in pixels of these images. They are cut at the edges; one of
            which less than boxes.LEAST_LEFT of the area is left is removed.
        mask: uint8 [b, H, W]; what comes into view is void.

    Returns:
        (images, boxes, mask), as given; None stays None.
    """
    names, share, (_, height, width, _) = ordered(names), 1., images.shape
    for name in (name for name in names if name in MOVING):
        transforms = MOVING[name].transform(images.shape, draws)
        images = move_images(images, MOVING[name], transforms)
        if boxes is not None:
            boxes, left = move_boxes(boxes, transforms, height, width)
            share *= left
        if mask is not None:
            mask = move_mask(mask, transforms)
    if boxes is not None and any(name in MOVING for name in names):
        boxes = remove_lost(boxes, share)
    for name in (name for name in CHANGING if name in names):
        images = CHANGING[name](images, draws)
    return images, boxes, mask
