"""WordPiece (arXiv:1609.08144, section 4.1) as BERT has it, in the graph, by core operations of TensorFlow only.

A text is normalised by one table of code points, split at white space and punctuation, and each word is cut into the
longest pieces of the vocabulary, from its beginning on. Every token knows which bytes of the text it came from.
"""

import functools
import json
import unicodedata

import numpy as np
import tensorflow as tf

from data.tokenizers.packages import text_package
from data.tokenizers.special import Special, valid_utf8
from errors import UserError

SPECIAL = PAD, UNKNOWN, START, END, MASK = '[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'
LONGEST_WORD = 100      # characters; a longer word is unknown
CONTINUES = '##'
SPACE = 0x20
# Planes of Unicode whose characters the table has. Nothing is assigned in the others, so they stay, but for the last
# two: those are for private use, and become nothing.
PLANES, PRIVATE = (0, 1, 2, 3, 14), (15, 16)
STAYS, NOTHING = -1, -2
CJK = ((0x4e00, 0x9fff), (0x3400, 0x4dbf), (0x20000, 0x2a6df), (0x2a700, 0x2b73f), (0x2b740, 0x2b81f),
       (0x2b820, 0x2ceaf), (0xf900, 0xfaff), (0x2f800, 0x2fa1f))
PUNCTUATION = ((33, 47), (58, 64), (91, 96), (123, 126))


class WordPieceTokenizer(tf.Module):
    """Strings [B] -> ids [B, length]: `[CLS]`, the tokens, `[SEP]`, padding.

    Args:
        vocabulary: the lines of vocab.txt, in order of their ids.
        lower: whether letters become small and lose their accents, as for the models called uncased.

    Raises:
        UserError: a special token is missing, or a token is there twice.
    """

    def __init__(self, vocabulary, lower=True):
        super().__init__()
        self.vocabulary, self.lower = tuple(vocabulary), lower
        ids = {token: i for i, token in enumerate(self.vocabulary)}
        missing = [token for token in SPECIAL if token not in ids]
        if missing or len(ids) < len(self.vocabulary):
            raise UserError(f'`tokenizer` must have a vocabulary with {", ".join(SPECIAL)}, '
                            f'each token once. Received: {len(self.vocabulary)} lines, {len(ids)} tokens, '
                            f'without {", ".join(missing) or "none of them"}')
        self.special = Special(pad=ids[PAD], start=ids[START], end=ids[END], unknown=ids[UNKNOWN], mask=ids[MASK])
        words = {token: i for token, i in ids.items() if i not in self.special.all}
        pieces = tf.lookup.KeyValueTensorInitializer(list(words), tf.constant(list(words.values()), tf.int64))
        self._ids = tf.lookup.StaticHashTable(pieces, default_value=-1)
        self._longest = max(len(token.removeprefix(CONTINUES)) for token in words)

    @property
    def vocabulary_size(self):
        return len(self.vocabulary)

    @property
    def files(self):
        """{name: bytes} from which `load_tokenizer` makes it again, as Hugging Face names them."""
        described = {'do_lower_case': self.lower, 'tokenizer_class': 'BertTokenizer'}
        return {'vocab.txt': ''.join(f'{token}\n' for token in self.vocabulary).encode(),
                'tokenizer_config.json': (json.dumps(described, indent=2) + '\n').encode()}

    @classmethod
    def from_files(cls, files):
        """Raises UserError: tokenizer_config.json asks for other rules than those here."""
        described = json.loads(files.get('tokenizer_config.json', b'{}'))
        lower = described.get('do_lower_case', True)
        for name, here in (('strip_accents', lower), ('tokenize_chinese_chars', True)):
            if described.get(name) not in (None, here):
                raise UserError(f'`tokenizer` must have {name}={here} in tokenizer_config.json where do_lower_case is '
                                f'{lower}. Received: {name}={described[name]}')
        lines = files['vocab.txt'].decode().split('\n')
        return cls([line.rstrip('\r') for line in (lines if lines[-1] else lines[:-1])], lower)

    def pieces(self, ids):
        """ids int [T] -> the tokens, a list of strings, to be shown."""
        return [self.vocabulary[int(i)] for i in ids]

    def encode(self, strings, length):
        """string [B] -> int32 [B, length]; a longer text is truncated."""
        ids, _, _ = self.tokenize(strings)
        return self.special.around_and_pad(ids, length, strings.shape[0])

    def decode(self, ids):
        """int [B, T] -> string [B]: the tokens before the first end, with a space before each word."""
        tokens = tf.gather(tf.constant(self.vocabulary), self.special.before_end(ids))
        return tf.strings.regex_replace(tf.strings.reduce_join(tokens, axis=1, separator=' '), f' {CONTINUES}', '')

    def encode_masked(self, strings, length, mark):
        """`encode`, but that each `mark` in a text becomes the mask token."""
        parts = tf.strings.split(strings, mark)                                           # ragged [B, (parts)]
        ids, _, _ = self.tokenize(parts.values)
        masks = tf.fill([ids.nrows(), 1], tf.cast(self.special.mask, tf.int64))
        ids = parts.with_values(tf.concat([ids, masks], axis=1)).merge_dims(1, 2)         # each part ends in a mask
        return self.special.around_and_pad(ids[:, :-1], length, strings.shape[0])

    def tokenize(self, strings):
        """string [B] -> ragged int64 [B, (tokens)], three times: ids, and the bytes from which to which each stands."""
        characters, begins, ends = self._normalised(valid_utf8(strings))                  # ragged [B, (characters)]
        is_space = characters.values == SPACE
        follows_space = tf.concat([[True], is_space], axis=0)[:-1]
        first = (_begins_row(characters) | follows_space) & ~is_space
        word = tf.cumsum(tf.cast(first, tf.int64)) - 1                                    # of each character
        kept = tf.boolean_mask
        rows = characters.value_rowids()
        words = tf.RaggedTensor.from_value_rowids(kept(characters.values, ~is_space), kept(word, ~is_space),
                                                  nrows=tf.reduce_sum(tf.cast(first, tf.int64)))
        ids, sizes = self._cut(words)                                                     # ragged [W, (tokens)]
        ids = tf.RaggedTensor.from_value_rowids(ids, kept(rows, first), nrows=characters.nrows())      # [B, (W), (t)]
        last = tf.cumsum(sizes.values)              # every character of a word is in one token
        begin = tf.gather(kept(begins.values, ~is_space), last - sizes.values)
        end = tf.gather(kept(ends.values, ~is_space), last - 1)
        ids = ids.merge_dims(1, 2)
        return ids, ids.with_values(begin), ids.with_values(end)

    # --- Characters ---

    def _normalised(self, strings):
        """string [B] -> ragged int32 [B, (characters)] after BERT's rules, and from which to which byte each came."""
        codes, begins = tf.strings.unicode_decode_with_offsets(strings, 'UTF-8')
        is_last = tf.concat([_begins_row(codes)[1:], [True]], axis=0)[:tf.size(begins.values)]
        following = tf.concat([begins.values, [0]], axis=0)[1:]
        ends = tf.where(is_last, tf.gather(tf.cast(tf.strings.length(strings), tf.int64), codes.value_rowids()),
                        following)
        table = table_of(self.lower)
        plane, starts = tf.gather(table.plane, codes.values // 0x10000), tf.constant(table.starts)
        rest = codes.values % 0x10000
        stays = (plane == STAYS) | ((plane == NOTHING) & (rest >= 0xfffe))                # the last two are unassigned
        place = tf.where(plane >= 0, plane * 0x10000 + rest, 0)                           # 0 becomes nothing
        start, count = tf.gather(starts, place), tf.gather(starts, place + 1) - tf.gather(starts, place)
        count = tf.where(stays, 1, count)
        which = tf.repeat(tf.range(tf.size(count)), count)                                # of each new character
        within = tf.range(tf.reduce_sum(count)) - tf.gather(tf.cumsum(count, exclusive=True), which)
        values = tf.where(tf.gather(stays, which), tf.gather(codes.values, which),
                          tf.gather(tf.constant(table.codes), tf.gather(start, which) + within))
        rows = tf.gather(codes.value_rowids(), which)
        characters = tf.RaggedTensor.from_value_rowids(values, rows, nrows=codes.nrows())
        return (characters, characters.with_values(tf.gather(begins.values, which)),
                characters.with_values(tf.gather(ends, which)))

    # --- Words ---

    def _cut(self, words):
        """ragged int32 [W, (characters)] -> ragged int64 [W, (tokens)]: ids, and how many characters each has."""
        strings = tf.strings.unicode_encode(words, 'UTF-8')                               # [W]
        distinct, which = tf.unique(strings, out_idx=tf.int64)
        ids, sizes = self._cut_distinct(distinct)
        return tf.gather(ids, which), tf.gather(sizes, which)

    def _cut_distinct(self, words):
        lengths = tf.strings.length(words, unit='UTF8_CHAR')
        count, most = tf.shape(words)[0], tf.range(self._longest, 0, -1)                  # longest first

        def more(done, _ids, _sizes, number):
            return (number == 0) | tf.reduce_any(done < lengths)      # a stack of no round has no shape

        def step(done, ids, sizes, number):
            """One more token of each word that has characters left."""
            take = most[None] * tf.cast((done[:, None] + most <= lengths[:, None]), tf.int32)         # [U, longest]
            everywhere = tf.shape(take)
            parts = tf.strings.substr(tf.broadcast_to(words[:, None], everywhere), tf.broadcast_to(
                done[:, None], everywhere), take, unit='UTF8_CHAR')
            prefix = tf.broadcast_to(tf.where(done > 0, CONTINUES, '')[:, None], everywhere)
            found = tf.where(take > 0, self._ids.lookup(tf.strings.join([prefix, parts])), -1)
            best = tf.argmax(found >= 0, axis=1, output_type=tf.int32)
            token = tf.gather(found, best, batch_dims=1)
            size = tf.gather(take, best, batch_dims=1)
            is_unknown = (token < 0) & (done < lengths)
            # A word that cannot be cut to its end is unknown as a whole.
            ids = ids.write(number, tf.where(is_unknown, tf.constant(FAILED, tf.int64), token))
            sizes = sizes.write(number, tf.where(token >= 0, size, 0))
            return tf.where(is_unknown, lengths, done + tf.where(token >= 0, size, 0)), ids, sizes, number + 1

        start = tf.where(lengths > LONGEST_WORD, lengths, 0)
        arrays = (tf.TensorArray(dtype, 0, dynamic_size=True, element_shape=[None]) for dtype in (tf.int64, tf.int32))
        _, ids, sizes, rounds = tf.while_loop(more, step, (start, *arrays, 0))
        ids = tf.reshape(tf.transpose(ids.stack()), [count, rounds])                      # [U, rounds]
        sizes = tf.reshape(tf.transpose(sizes.stack()), [count, rounds])
        failed = tf.reduce_any(ids == FAILED, axis=1) | (lengths > LONGEST_WORD)
        is_token = (sizes > 0) & ~failed[:, None]
        unknown = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(tf.cast(failed, tf.int32))], tf.cast(
            self.special.unknown, tf.int64)), tf.cast(failed, tf.int64))
        whole = unknown.with_values(tf.cast(tf.boolean_mask(lengths, failed), tf.int64))
        return (tf.concat([tf.ragged.boolean_mask(ids, is_token), unknown], axis=1),
                tf.concat([tf.cast(tf.ragged.boolean_mask(sizes, is_token), tf.int64), whole], axis=1))


FAILED = -2      # in place of an id: no piece fits


def train_wordpiece(strings, vocabulary_size, lower=True):
    """Trains a vocabulary by Hugging Face's tokenizers. The same strings give the same one.

    Args:
        strings: iterable of bytes. vocabulary_size: number of tokens at most, among them 5 special ones and all
            characters of the text, twice: at the beginning of a word, and within.

    Raises:
        UserError: the characters alone are more, or the package is missing.
    """
    texts = [string.decode('utf-8', 'replace') for string in strings]
    alphabet = _trained(texts, len(SPECIAL), lower, SPECIAL)
    if len(alphabet) > vocabulary_size:
        raise UserError(f'`vocabulary_size` must be at least {len(alphabet)} for this text. '
                        f'Received: vocabulary_size={vocabulary_size}')
    # The library numbers characters within words in an order that differs from process to process, and of equally
    # frequent pairs merges that of lower numbers. They are numbered here, as if they were special.
    within = sorted(token for token in alphabet if token.startswith(CONTINUES) and len(token) > len(CONTINUES))
    return WordPieceTokenizer(_trained(texts, vocabulary_size, lower, [*SPECIAL, *within]), lower)


def _trained(texts, size, lower, first):
    """The tokens, in order of their ids: those that are given first, all characters, and merged ones, up to `size`."""
    library = text_package('tokenizers')
    tokenizer = library.Tokenizer(library.models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    trainer = library.trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(first), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.get)


def _begins_row(ragged):
    """bool [values]: whether a value is the first of its row."""
    rows = tf.concat([[-1], ragged.value_rowids()], axis=0)
    return rows[1:] != rows[:-1]


class Table:
    """What each code point becomes: codes[starts[p]:starts[p + 1]], where p is its place, plane * 0x10000 + the rest.

    plane: int32 [17], the number of a plane in the table, or STAYS or NOTHING.
    """

    def __init__(self, lower):
        found, lengths = [], []
        for plane in PLANES:
            for rest in range(0x10000):
                new = normalised(plane << 16 | rest, lower)
                found += new
                lengths.append(len(new))
        self.codes = np.array(found, np.int32)
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        self.plane = np.array([PLANES.index(plane) if plane in PLANES else NOTHING if plane in PRIVATE else STAYS
                               for plane in range(17)], np.int32)


@functools.cache
def table_of(lower):
    return Table(lower)


def normalised(code, lower):
    """A code point -> the code points that BERT makes of it, a list."""
    character = chr(code)
    category = unicodedata.category(character)
    if character in '\t\n\r' or category == 'Zs':
        return [SPACE]
    if code in (0, 0xfffd) or category in ('Cc', 'Cf', 'Co', 'Cs'):
        return []
    if any(low <= code <= high for low, high in CJK):
        return [SPACE, code, SPACE]
    if lower:
        character = ''.join(one for one in unicodedata.normalize('NFD', character.lower())
                            if unicodedata.category(one) != 'Mn')
    return [new for one in character for new in ([SPACE, ord(one), SPACE] if is_punctuation(one) else [ord(one)])]


def is_punctuation(character):
    code = ord(character)
    return (any(low <= code <= high for low, high in PUNCTUATION)
            or unicodedata.category(character).startswith('P'))
