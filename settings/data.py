"""Which examples a run reads, and how they become numbers: one section per kind of input."""

from dataclasses import dataclass

from settings.datasets import NAMED
from settings.fields import Section, field


# In the order in which they are applied, which is not the order in which they are given. data/inputs/augment.py.
AUGMENTATIONS = ('none', 'resized_crop', 'crop', 'translate', 'shift', 'flip', 'flip_shift', 'alternating_flip',
                 'vertical_flip', 'trivial_augment', 'color_jitter', 'erase', 'mixup', 'cutmix')
# At most one of each: those that move the image sideways, and those that mirror it left and right.
EXCLUSIVE = (('resized_crop', 'crop', 'translate', 'shift', 'flip_shift'), ('flip', 'flip_shift', 'alternating_flip'))


@dataclass(frozen=True)
class Data(Section):
    """Attributes:
        asked_by: the flag of predict.py that gives a trained model an input of this kind.
        about: the flag that gives the file that all of them are about, or ''.
    """
    asked_by, about = '', ''
    dataset: str = field('', f'Dataset: {", ".join(NAMED)}, a folder of data_dir, or any name of TensorFlow Datasets.')

    def rules(self):
        yield 'dataset', 'must be given', bool(self.dataset)


@dataclass(frozen=True)
class Vectors(Data):
    kind, asked_by = 'vectors', 'values'


@dataclass(frozen=True)
class Images(Data):
    kind, asked_by = 'images', 'image'
    image_size: int = field(0, 'Side in pixels to which images are resized; where they have boxes or masks, the longer '
                               'side, a multiple of 32. 0 keeps the size of the dataset.', least=0,
                            most=2 ** 13)
    channels: int = field(0, 'Colour channels to which images are converted: 1 for grey, 3 for RGB. 0 keeps those of '
                             'the dataset.', choices=(0, 1, 3))
    augment: str = field('none', 'Random changes of training images, applied in the order of this list.',
                         items=AUGMENTATIONS)

    def rules(self):
        yield from super().rules()
        names = self.augment.split(',')
        yield 'augment', 'must have nothing beside none', names == ['none'] or 'none' not in names
        for group in EXCLUSIVE:
            yield 'augment', f'must have at most one of {", ".join(group)}', sum(name in group for name in names) < 2


@dataclass(frozen=True)
class Tokens(Data):
    """What all texts have in common."""
    tokenizer: str = field('', 'Tokenizer that is trained on the training split. Without it, the dataset\'s own, else '
                               'subwords.', choices=('', 'words', 'subwords', 'wordpiece'))
    vocabulary_size: int = field(0, 'Size of the vocabulary that is trained. 0 means 8,000.', least=0, most=2 ** 20)
    max_length: int = field(0, 'Maximum tokens per text; longer ones are truncated. 0 means that of a dataset with a '
                               'tokenizer of its own, else 64.', least=0, most=2 ** 16)


@dataclass(frozen=True)
class Texts(Tokens):
    kind, asked_by = 'texts', 'text'
    word_dropout: float = field(0., 'Probability with which each token of a training text becomes the unknown one.',
                                least=0, below=1)


@dataclass(frozen=True)
class TextPairs(Tokens):
    kind, asked_by = 'text_pairs', 'text'
    packing: bool = field(False, 'Packing of several pairs into one training row of `max_length` tokens; `batch_size` '
                                 'then counts rows.')


@dataclass(frozen=True)
class Questions(Tokens):
    """Questions about texts. `max_length` is that of a window; 0 means 384."""
    kind, asked_by, about = 'questions', 'question', 'context'
    question_length: int = field(64, 'Maximum tokens per question; longer ones are truncated.', least=1, most=2 ** 12)
    stride: int = field(128, 'Number of tokens between the beginnings of two windows over a text.',
                        least=1, most=2 ** 12)
