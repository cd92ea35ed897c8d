"""What can be asked for: the fields of every model, task and kind of data, and the options of a run. No TensorFlow."""

from settings.data import Images, Questions, TextPairs, Texts, Vectors
from settings.models import CNN, LSTM, MLP, Airbench, Bert, CenterNet, DeepLab, ResNet, Transformer, UNet
from settings.options import Options
from settings.recipe import Recipe
from settings.tasks import Classification, Detection, MaskedLM, QuestionAnswering, Regression, Segmentation, Translation
from settings.training import Training
