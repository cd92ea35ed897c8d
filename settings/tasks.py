"""What is asked of the model: one section per task."""

from dataclasses import dataclass

from settings.fields import Section, field


@dataclass(frozen=True)
class Task(Section):
    """Attributes:
        writes: whether the model writes texts, by a search or by sampling.
        drawn: what predict.py can draw into an image, in words; '' for nothing. drawn_only: outputs that are not
            printed, but drawn.
    """
    writes, drawn, drawn_only = False, '', ()


@dataclass(frozen=True)
class Smoothed(Task):
    """A task whose loss is a cross-entropy."""
    label_smoothing: float = field(0., 'Probability mass spread evenly over all classes in the training loss.', least=0,
                                   below=1)


@dataclass(frozen=True)
class Classification(Smoothed):
    kind = 'classification'


@dataclass(frozen=True)
class Regression(Task):
    kind = 'regression'


@dataclass(frozen=True)
class Detection(Task):
    kind, drawn = 'detection', 'an image with the boxes found'
    min_score: float = field(0.3, 'Lowest score of a box that is served or shown, and that precision and recall '
                                  'count. Average precision looks at all boxes.', least=0, most=1)


@dataclass(frozen=True)
class Segmentation(Smoothed):
    kind, drawn_only = 'segmentation', ('mask',)
    drawn = 'an image under the colours of its classes; the mask is written beside it, as NAME_mask.png'


@dataclass(frozen=True)
class MaskedLM(Smoothed):
    kind = 'masked_lm'


@dataclass(frozen=True)
class QuestionAnswering(Task):
    kind = 'question_answering'


@dataclass(frozen=True)
class Translation(Smoothed):
    kind, writes = 'translation', True
    beam_size: int = field(1, 'Beam size of the search in evaluation and export. 1 decodes greedily.', least=1,
                           most=1024)
    length_penalty: float = field(0.6, 'Exponent of the length penalty of beam search, arXiv:1609.08144, equation 14.',
                                  least=0, most=100)

    def idle(self):
        if self.beam_size == 1:
            yield 'length_penalty', 'is for beam search: `beam_size` must be above 1'
