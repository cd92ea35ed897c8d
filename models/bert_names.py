"""A BERT's weights elsewhere: names in Hugging Face's files, old ones among them, and config.json."""

from models.bert import configuration
from models.pretrained import AS_IS, DENSE, Names

# Buffers, second names of other weights, and the head that tells whether one sentence follows another.
IGNORED = ('position_ids', 'cls.predictions.decoder.weight', 'cls.predictions.decoder.bias',
           'cls.seq_relationship.weight', 'cls.seq_relationship.bias')
OLDER = {'LayerNorm.gamma': 'LayerNorm.weight', 'LayerNorm.beta': 'LayerNorm.bias'}
NORM = {'gamma': 'weight', 'beta': 'bias'}
ATTENTION = {'query': 'self.query', 'key': 'self.key', 'value': 'self.value', 'output_projection': 'output.dense'}
# What Hugging Face's BertConfig is where config.json is silent.
DEFAULTS = {'model_type': 'bert', 'hidden_size': 768, 'num_hidden_layers': 12, 'num_attention_heads': 12,
            'intermediate_size': 3072, 'hidden_act': 'gelu', 'layer_norm_eps': 1e-12, 'vocab_size': 30522,
            'max_position_embeddings': 512, 'type_vocab_size': 2, 'position_embedding_type': 'absolute'}
OPTIONS = {'num_layers': 'num_hidden_layers', 'd_model': 'hidden_size', 'd_ff': 'intermediate_size',
           'heads': 'num_attention_heads', 'positions': 'max_position_embeddings', 'norm_epsilon': 'layer_norm_eps'}
ACTIVATIONS = {'gelu': 'gelu', 'gelu_new': 'gelu_tanh', 'gelu_pytorch_tanh': 'gelu_tanh'}


def _dense(ours, theirs):
    return {f'{ours}/kernel': (f'{theirs}.weight', DENSE), f'{ours}/bias': (f'{theirs}.bias', AS_IS)}


def _norm(ours, theirs):
    return {f'{ours}/{name}': (f'{theirs}.{other}', AS_IS) for name, other in NORM.items()}


def _table():
    table = {f'{ours}_table/table': (f'embeddings.{theirs}_embeddings.weight', AS_IS) for ours, theirs in (
        ('word', 'word'), ('position', 'position'), ('segment', 'token_type'))}
    table |= _norm('embeddings_norm', 'embeddings.LayerNorm')
    ours, theirs = 'encoder_{}', 'encoder.layer.{}'
    for name, other in ATTENTION.items():
        table |= _dense(f'{ours}/self_attention/{name}', f'{theirs}.attention.{other}')
    table |= _norm(f'{ours}/self_attention_norm', f'{theirs}.attention.output.LayerNorm')
    table |= _dense(f'{ours}/feed_forward_in', f'{theirs}.intermediate.dense')
    table |= _dense(f'{ours}/feed_forward_out', f'{theirs}.output.dense')
    return table | _norm(f'{ours}/feed_forward_norm', f'{theirs}.output.LayerNorm')


def options(config):
    """{option of ours: value} of a model that config.json describes.

    Raises:
        ValueError: it is no BERT, or one of a kind that is not here.
    """
    config = DEFAULTS | config
    for name in ('model_type', 'type_vocab_size', 'position_embedding_type'):
        if config[name] != DEFAULTS[name]:
            raise ValueError(f'{name} is {config[name]!r} in config.json, and only {DEFAULTS[name]!r} is known here')
    if config['hidden_act'] not in ACTIVATIONS:
        raise ValueError(f'hidden_act is {config["hidden_act"]!r} in config.json, and only {", ".join(ACTIVATIONS)} '
                         'are known here')
    return {**{ours: config[theirs] for ours, theirs in OPTIONS.items()},
            'activation': ACTIVATIONS[config['hidden_act']]}


# The pooler is a head's first layer here, and a part of the encoder there.
HEADS = {'classes': _dense('head_pooler', 'bert.pooler.dense') | _dense('logits', 'classifier'),
         'spans': _dense('logits', 'qa_outputs'),
         'tokens': {**_dense('head_transform', 'cls.predictions.transform.dense'),
                    **_norm('head_norm', 'cls.predictions.transform.LayerNorm'),
                    'head_words/bias': ('cls.predictions.bias', AS_IS)}}
CLASSES = {'classes': 'BertForSequenceClassification', 'spans': 'BertForQuestionAnswering', 'tokens': 'BertForMaskedLM'}


def head_of(shapes):
    """Which head a model of {path: shape} has."""
    if 'head_pooler/kernel' in shapes:
        return 'classes'
    return 'tokens' if 'head_words/bias' in shapes else 'spans'


def _names(head):
    others = [name.removeprefix('bert.') for other, table in HEADS.items() if other != head
              for name, _ in table.values()]
    return Names(_table() | HEADS[head], prefixes=('bert.',), ignored=(*IGNORED, *others), older=OLDER)


HUGGING_FACE = {head: _names(head) for head in HEADS}


def layouts(shapes):
    """{name of a library: Names} for a model of {path: shape}."""
    return {'Hugging Face': HUGGING_FACE[head_of(shapes)]}


def check(described, shapes, given):
    """Raises ValueError where config.json asks for another model than that of the options `given`."""
    if 'config.json' in described:
        here = _options(given)
        for name, there in options(described['config.json']).items():
            if here[name] != there:
                raise ValueError(f'{name} is {there!r} by config.json, {here[name]!r} here')


def _options(given):
    """{option: value} of a section of the recipe, of which None leaves the choice to the model."""
    return configuration(given['size'], given)


def describe(shapes, given, sizes, class_names):
    """{file name: content} that Hugging Face's library reads beside the weights of a model.

    Args:
        shapes: {path: shape} of the model. given: {name: value} of its section. sizes: {name: size} of its task.
        class_names: of the outputs, or ().
    """
    here, activations = _options(given), {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    config = {'architectures': [CLASSES[head_of(shapes)]], **DEFAULTS, 'vocab_size': shapes['word_table/table'][0],
              **{theirs: here[ours] for ours, theirs in OPTIONS.items()}, 'hidden_act': activations[here['activation']],
              'hidden_dropout_prob': here['dropout'], 'attention_probs_dropout_prob': here['dropout'],
              'dtype': 'float32'}
    if class_names:
        config |= {'id2label': dict(enumerate(map(str, class_names))),
                   'label2id': {str(name): i for i, name in enumerate(class_names)}}
    return {'config.json': config}


def counters(names):
    """Nothing but weights is in their files."""
    return {}
