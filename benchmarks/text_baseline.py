"""What a user would try first on texts by class: tf-idf of words and pairs of words, and logistic regression.

    python -m benchmarks.text_baseline sst2 trec imdb

Reads the datasets as a run does, from CONGRUENT_DATA; writes benchmarks/results/text_baseline.json.
"""

import cli
from benchmarks.report import write


def main(names):
    with cli.quiet_tensorflow():
        import tensorflow as tf

        from data import open_dataset
    measured = {}
    for name in names:
        dataset = open_dataset(name)
        splits = {split: dataset.split(split).gather(tf.range(dataset.split(split).num_examples, dtype=tf.int64))
                  for split in ('train', 'test')}
        measured[name] = accuracy(*(([text.decode() for text in part['text'].numpy()], part['label'].numpy())
                                    for part in splits.values()))
        print(f'{name}: accuracy {measured[name]:.4f}')
    write('text_baseline', {'accuracy': measured})


def accuracy(train, test):
    """((texts, labels) of the training split, of the test split) -> accuracy."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(C=10, max_iter=1000))
    return float(model.fit(*train).score(*test))


if __name__ == '__main__':
    cli.run(main, lambda: None, arguments=True)
