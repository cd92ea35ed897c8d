"""How near answers are to the right ones, as SQuAD 1.1's own program counts (arXiv:1606.05250, section 6.1)."""

import collections
import re
import string

ARTICLES = re.compile(r'\b(a|an|the)\b')
PUNCTUATION = str.maketrans('', '', string.punctuation)


def scores(answers, references):
    """Texts [N], and for each a list of right ones -> {exact_match, f1}, 0 to 100: the mean of the best for each.

    An answer counts by its words, in small letters and without punctuation and articles.
    """
    pairs = [([exact(answer, right) for right in texts], [f1(answer, right) for right in texts])
             for answer, texts in zip(answers, references, strict=True)]
    return {name: 100. * sum(max(one[i], default=0.) for one in pairs) / len(pairs)
            for i, name in enumerate(('exact_match', 'f1'))}


def normalised(text):
    return ' '.join(ARTICLES.sub(' ', text.lower().translate(PUNCTUATION)).split())


def exact(answer, right):
    return float(normalised(answer) == normalised(right))


def f1(answer, right):
    """The harmonic mean of precision and recall of the words, each as often as it stands."""
    answer, right = normalised(answer).split(), normalised(right).split()
    same = sum((collections.Counter(answer) & collections.Counter(right)).values())
    return 2. * same / (len(answer) + len(right)) if same else 0.
