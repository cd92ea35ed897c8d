"""Images with boxes as Hugging Face's folders of images have them: one line of JSON per image.

    FOLDER/train/metadata.jsonl, FOLDER/train/*.jpg, ...      your own split
    FOLDER/metadata.jsonl                                     split by a hash, see folders.py

    {"file_name": "1.jpg", "objects": {"bbox": [[302, 109, 73, 52]], "categories": [0]}}

A box is [x, y, width, height] in pixels, x and y from 0. `categories`, or `category`, are names or numbers; numbers get
the names of the lines of FOLDER/classes.txt, if there is one.
"""

import json

from data.sources.boxes import Annotated, boxed_dataset, check_box
from data.sources.folders import own_splits, split_of_name, three_splits
from data.sources.parallel import read_lines
from errors import UserError

FILE, KEYS = 'metadata.jsonl', ('categories', 'category')


def holds_box_lines(folder):
    """Whether there are such files, and the first line has objects."""
    files = [path for path in _files(folder).values() if path]
    return any('"objects"' in line for path in files[:1] for line in read_lines(path)[:1])


def open_box_lines(name, folder):
    files = _files(folder)
    names = [line for line in read_lines(folder / 'classes.txt') if line] if (folder / 'classes.txt').is_file() else []
    whole = files.pop('train')
    if whole is None:
        raise UserError(f'`dataset` {folder} must have {FILE} for train. Received: none')
    own = {split: _read(path, names) if path else None for split, path in files.items()}
    splits = three_splits(own, _read(whole, names), lambda one: split_of_name(one.file.stem))
    return boxed_dataset(name, folder, splits, names or _numbered(splits))


def _files(folder):
    """{split: its file, or None}; a file without a split is that of train."""
    files = own_splits(folder, f'/{FILE}')
    return {**files, 'train': files['train'] or next(filter(lambda path: path.is_file(), [folder / FILE]), None)}


def _numbered(splits):
    """The names of numbered classes, in the order of the numbers; None for classes that have names."""
    found = {class_name for examples in splits.values() for one in examples for _, class_name, _ in one.objects}
    return [str(i) for i in range(1 + max(map(int, found)))] if found and all(map(str.isdecimal, found)) else None


def _read(path, names):
    examples = []
    for number, line in enumerate(read_lines(path), 1):
        place = f'{path} line {number}'
        if not line:
            continue
        try:
            item = json.loads(line)
            file, objects = path.parent / item['file_name'], item['objects']
            classes = next((objects[key] for key in KEYS if key in objects), None)
            boxes = [tuple(map(float, box)) for box in objects['bbox']]
            objects = [(_box(place, *box), _name(one, names), False) for box, one in zip(boxes, classes, strict=True)]
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f'`dataset` {place} must be {{"file_name": ..., "objects": {{"bbox": [[x, y, width, '
                            f'height], ...], "categories": [...]}}}}. '
                            f'Received: {type(error).__name__}: {error}') from None
        if not file.is_file():
            raise UserError(f'`dataset` {place} names {item["file_name"]!r}, which is missing')
        examples.append(Annotated(file, place, objects))
    return examples


def _box(place, x, y, width, height):
    return check_box(place, (x, y, x + width, y + height))


def _name(category, names):
    """A category's name, or its number as text where nothing names it."""
    if isinstance(category, bool) or not isinstance(category, (str, int)):
        raise ValueError(f'{category!r} is no category')
    if isinstance(category, str):
        return category
    if category < 0:
        raise ValueError(f'{category} is no category')
    return names[category] if names else str(category)
