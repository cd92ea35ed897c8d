"""Questions of TensorFlow Datasets, such as squad: they are read into memory, and are what a file of SQuAD's gives."""

from data.sources import squad


def are_questions(features):
    """Whether a set has SQuAD's features: a question, its context, and answers with the place where each stands."""
    if not hasattr(features, 'items') or not {'question', 'context', 'answers'} <= set(features):
        return False
    inner = getattr(features['answers'], 'feature', None)
    return hasattr(inner, 'items') and {'text', 'answer_start'} <= set(inner)


def open_questions(name, builder):
    """The Dataset of a builder that is prepared.

    Raises:
        UserError: a question has no answer, or one that is not in its context.
    """
    splits = {split: _examples(builder, split) for split in builder.info.splits}
    own = {split: splits.get(split) for split in ('validation', 'test')}
    return squad.of_examples(name, own, splits['train'], f'TensorFlow Datasets in {builder.data_dir}')


def _examples(builder, split):
    import tensorflow_datasets as tfds
    found = []
    for one in tfds.as_numpy(builder.as_dataset(split, shuffle_files=False)):
        answers = zip(one['answers']['text'], one['answers']['answer_start'])
        found.append(squad.example(f'{builder.info.full_name} {split}', one['context'].decode(), {
            'id': one['id'].decode() if 'id' in one else f'number {len(found)}', 'question': one['question'].decode(),
            'answers': [{'text': text.decode(), 'answer_start': int(start)} for text, start in answers]}))
    return found
