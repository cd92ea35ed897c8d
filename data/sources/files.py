"""A folder in one of the field's usual layouts: which of them it is."""

from data.sources.box_lines import holds_box_lines, open_box_lines
from data.sources.coco import holds_coco, open_coco
from data.sources.image_folder import open_image_folder
from data.sources.labelled_texts import holds_tables, holds_text_files, open_labelled_files, open_labelled_tables
from data.sources.masks import holds_masks, open_masks
from data.sources.parallel import holds_parallel, open_parallel
from data.sources.squad import holds_squad, open_squad
from data.sources.voc import holds_voc, open_voc

LAYOUTS = ((holds_parallel, open_parallel), (holds_squad, open_squad), (holds_tables, open_labelled_tables),
           (holds_voc, open_voc), (holds_coco, open_coco), (holds_box_lines, open_box_lines),
           (holds_masks, open_masks), (holds_text_files, open_labelled_files))


def open_folder(name, folder):
    """The data set in a folder: of the first layout whose files it has, else of images by class.

    Raises:
        UserError: it holds none, or something in it cannot be read.
    """
    opens = next((opens for holds, opens in LAYOUTS if holds(folder)), open_image_folder)
    return opens(name, folder)
