"""A picture of what a Transformer looks at while it translates: arXiv:1706.03762, the figures of its appendix."""

import io
import warnings

import numpy as np
import tensorflow as tf

from data.text import END, PADDING, START
from errors import UserError

# Tried in this order for each character: matplotlib's own font has no Chinese, Japanese, Korean or Arabic ones.
FONTS = ('DejaVu Sans', 'Noto Sans CJK SC', 'Noto Sans CJK JP', 'WenQuanYi Micro Hei', 'Noto Sans Arabic',
         'Noto Sans Hebrew', 'Noto Sans Devanagari')
INCHES = 0.3      # a token


def cross_attention(model, features, source, ids):
    """How much each token of a translation looks at each token of its source.

    Args:
        source: int32 [S], a sentence's tokens. ids: int32 [T], its translation's.

    Returns:
        float32 [layers, t, s], the mean over heads, rows sum to 1; the t and the s tokens as strings, END included.
    """
    s, t = (_real(tokens) for tokens in (source, ids))
    weights = model.attention_weights({'source': source[None], 'target': tf.concat([[START], ids[:-1]], axis=0)[None]})
    layers = [np.mean(value[0, :, :t, :s], axis=0, dtype='float32') for name, value in weights.items()
              if name.endswith('/cross_attention')]                                            # each [t, s]
    return np.stack(layers), features.target_tokenizer.pieces(ids[:t]), features.source_tokenizer.pieces(source[:s])


def _real(tokens):
    """The number of tokens up to the first END, or of all that are not padding."""
    tokens = np.asarray(tokens)
    ends = np.flatnonzero(tokens == END)
    return int(ends[0]) + 1 if len(ends) else max(1, np.count_nonzero(tokens != PADDING))


def draw(layers, targets, sources, format):
    """A picture's bytes: one panel a layer, both sentences on the axes; dark is much.

    Args:
        layers, targets, sources: as `cross_attention` returns them.
        format: png, pdf, svg, or another of matplotlib's.

    Raises:
        UserError: matplotlib is missing, or it does not know the format.
    """
    try:
        import matplotlib
        from matplotlib import font_manager
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('`attention` needs matplotlib: pip install -e ".[text]"') from None
    installed = {font.name for font in font_manager.fontManager.ttflist}
    with matplotlib.rc_context({'font.family': [name for name in FONTS if name in installed]}):
        size = (len(layers) * (INCHES * len(sources) + 2), INCHES * len(targets) + 2)
        figure = Figure(figsize=size, layout='constrained')
        known = figure.canvas.get_supported_filetypes()
        if format not in known:
            raise UserError(f'`attention` must be a file that ends in one of {", ".join(sorted(known))}. '
                            f'Received: {format or "no ending"}')
        panels = figure.subplots(1, len(layers), squeeze=False)[0]
        for number, (panel, weights) in enumerate(zip(panels, layers, strict=True), 1):
            panel.imshow(weights, cmap='Greys', vmin=0., vmax=1.)
            panel.set_title(f'decoder layer {number}, mean of heads')
            panel.set_xticks(range(len(sources)), sources, rotation=90)
            panel.set_yticks(range(len(targets)), targets)
            panel.set(xlabel='source', ylabel='translation')
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Glyph .* missing from')      # a box stands for it
            figure.savefig(file, format=format, dpi=120)
    return file.getvalue()
