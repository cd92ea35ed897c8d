"""Images with boxes as Pascal VOC has them (doi:10.1007/s11263-009-0275-4), and labelImg and others write them.

    FOLDER/Annotations/NAME.xml, FOLDER/JPEGImages/NAME.jpg
    FOLDER/ImageSets/Main/train.txt, val.txt, test.txt        a NAME per line; else split by a hash, see folders.py

The files count pixels from 1, and xmax and ymax are inside: (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax,
ymax). A box whose xmax is xmin, or ymax ymin, is a slip of the mouse, without an area. An object that is `difficult` is
ignored, see data.dataset.Boxes.
"""

import math
from xml.etree import ElementTree

from data.sources.boxes import Annotated, boxed_dataset, check_box
from data.sources.folders import check_regular, own_splits, split_of_name, three_splits
from data.sources.parallel import read_lines
from errors import UserError

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def holds_voc(folder):
    return (folder / 'Annotations').is_dir() and (folder / 'JPEGImages').is_dir()


def open_voc(name, folder):
    own = own_splits(folder / 'ImageSets' / 'Main', '.txt')
    if not own['train'] and any(own.values()):
        raise UserError(f'`dataset` {folder}/ImageSets/Main must have a list train.txt. '
                        f'Received: {", ".join(path.name for path in own.values() if path)}')
    images = _by_stem(folder / 'JPEGImages')
    listed = _listed(folder, {split: path for split, path in own.items() if path})
    whole = listed.pop('train', None) or sorted(path.stem for path in (folder / 'Annotations').glob('[!.]*.xml'))
    splits = three_splits({split: listed.get(split) for split in ('validation', 'test')}, whole, split_of_name)
    return boxed_dataset(name, folder, {split: [_read(folder, stem, images) for stem in stems]
                                        for split, stems in splits.items()})


def _listed(folder, lists):
    """{split: [NAME]} of the lists {split: path}."""
    names, found = {}, {}
    for split, path in lists.items():
        names[split] = [line for line in read_lines(path) if line]
        for number, line in enumerate(names[split], 1):
            if line in found:
                raise UserError(f'`dataset` {path} must name each image once, in one split. Received: {line!r}, which '
                                f'is in {found[line]} too')
            if not (folder / 'Annotations' / f'{line}.xml').is_file():
                raise UserError(f'`dataset` {path} names {line!r}, for which there is no Annotations/{line}.xml')
            found[line] = path.name
    return names


def _by_stem(folder):
    return {path.stem: path for path in sorted(folder.iterdir()) if not path.name.startswith('.')}


def _read(folder, stem, images):
    path = folder / 'Annotations' / f'{stem}.xml'
    check_regular(path)
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise UserError(f'`dataset` {path} must be XML: {error}') from None
    if stem not in images:
        raise UserError(f'`dataset` {path} has no image: {folder}/JPEGImages/{stem}.jpg is missing')
    objects = [_object(path, number, item) for number, item in enumerate(root.iter('object'), 1)]
    size = [int(_number(path, 'size', root.find('size'), side)) for side in ('width', 'height')] \
        if root.find('size') is not None else []
    return Annotated(images[stem], path, objects, size if all(size) else None)


def _object(path, number, item):
    place = f'object {number}'
    class_name = (item.findtext('name') or '').strip()
    if not class_name:
        raise UserError(f'`dataset` {path}: {place} must have a name')
    xmin, ymin, xmax, ymax = (_number(path, place, item.find('bndbox'), corner) for corner in CORNERS)
    ignored = (item.findtext('difficult') or '0').strip() == '1'
    box = check_box(f'{path}: {place}', (xmin - (xmax > xmin), ymin - (ymax > ymin), xmax, ymax))
    return box, class_name, ignored


def _number(path, place, item, tag):
    text = item.findtext(tag) if item is not None else None
    try:
        if math.isfinite(number := float(text)):
            return number
    except (TypeError, ValueError):
        pass
    raise UserError(f'`dataset` {path}: {tag} of {place} must be a number. Received: {text!r}')
