"""How well the pixels of a whole split are classified, from one matrix of counts."""

import numpy as np


def confusion_matrix(truth, answers, classes):
    """Classes of pixels, uint8 or int arrays of one shape -> int64 [classes, classes], rows the truth.

    Pixels whose truth is no class, such as void, are left out. Matrices of parts are added.
    """
    truth, answers = np.asarray(truth, np.int64).ravel(), np.asarray(answers, np.int64).ravel()
    is_class = (truth >= 0) & (truth < classes)
    pairs = truth[is_class] * classes + answers[is_class]
    return np.bincount(pairs, minlength=classes ** 2).reshape(classes, classes)


def segmentation_scores(confusion, names):
    """int64 [K, K], see `confusion_matrix` -> {metric: value, 0 to 1}.

    Returns:
        mean_iou: mean over the classes that are in the truth or in an answer. pixel_accuracy. iou/NAME of each of these
        classes: pixels that are of it in both over pixels that are of it in either. Empty where there is no pixel.
    """
    confusion = np.asarray(confusion, np.int64)
    both = np.diagonal(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    if not either.any():
        return {}
    iou = {name: float(both[i] / either[i]) for i, name in enumerate(names) if either[i]}
    return {'mean_iou': float(np.mean(list(iou.values()))), 'pixel_accuracy': float(both.sum() / confusion.sum()),
            **{f'iou/{name}': value for name, value in iou.items()}}
