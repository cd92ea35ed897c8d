"""A folder in one of the field's usual layouts: which of them it is."""

from data.sources.image_folder import open_image_folder
from data.sources.labelled_texts import holds_tables, holds_text_files, open_labelled_files, open_labelled_tables
from data.sources.parallel import holds_parallel, open_parallel

LAYOUTS = 'images or texts in one sub-folder per class; SPLIT.tsv of labels and texts; source.txt and target.txt'


def open_folder(name, folder):
    """The data set in a folder.

    Raises:
        UserError: it holds none, or something in it cannot be read.
    """
    if holds_parallel(folder):
        return open_parallel(name, folder)
    if holds_tables(folder):
        return open_labelled_tables(name, folder)
    if holds_text_files(folder):
        return open_labelled_files(name, folder)
    return open_image_folder(name, folder)
