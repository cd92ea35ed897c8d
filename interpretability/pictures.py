"""Pictures of what a model looks at, by matplotlib (of the extra `text`)."""

import io
import warnings

from errors import UserError

# Tried in this order for each character: matplotlib's own font has no Chinese, Japanese, Korean or Arabic ones.
FONTS = ('DejaVu Sans', 'Noto Sans CJK SC', 'Noto Sans CJK JP', 'WenQuanYi Micro Hei', 'Noto Sans Arabic',
         'Noto Sans Hebrew', 'Noto Sans Devanagari')
INCHES = 0.3      # per token


def draw_attention(layers, targets, sources, format):
    """A picture's bytes: one panel per layer, both sentences on the axes; darker means more attention.

    Args:
        layers, targets, sources: as attention.cross_attention returns them.
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
