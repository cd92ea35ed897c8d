"""Which examples a run reads, and how they become numbers: one section per kind of input."""

from dataclasses import dataclass

from settings.fields import Section, field


@dataclass(frozen=True)
class Data(Section):
    dataset: str = field('', 'Dataset: digits, diabetes, number_words, fashion_mnist, gettext/LANG, files/FOLDER, or '
                             'any name of TensorFlow Datasets.')

    def rules(self):
        yield 'dataset', 'must be given', bool(self.dataset)


@dataclass(frozen=True)
class Vectors(Data):
    kind = 'vectors'


@dataclass(frozen=True)
class Images(Data):
    kind = 'images'
    image_size: int = field(0, 'Side in pixels to which images are resized. 0 keeps the size of the dataset.', least=0,
                            most=2 ** 13)
    channels: int = field(0, 'Colour channels to which images are converted: 1 for grey, 3 for RGB. 0 keeps those of '
                             'the dataset.', choices=(0, 1, 3))
    augment: str = field('none', 'Random transform of training images.',
                         choices=('none', 'shift', 'flip', 'flip_shift'))


@dataclass(frozen=True)
class Texts(Data):
    kind = 'texts'
    tokenizer: str = field('subwords', 'Tokenizer: subwords are trained on the training split; words are those that '
                                       'the dataset brings, or those of the training split.',
                           choices=('words', 'subwords'))
    vocabulary_size: int = field(8_000, 'Size of the vocabulary that is trained where a dataset brings none.', least=2,
                                 most=2 ** 20)
    max_length: int = field(64, 'Maximum tokens per text; longer ones are truncated.', least=2, most=2 ** 16)


@dataclass(frozen=True)
class TextPairs(Texts):
    kind = 'text_pairs'
    packing: bool = field(False, 'Packing of several pairs into one training row of `max_length` tokens; `batch_size` '
                                 'then counts rows.')
