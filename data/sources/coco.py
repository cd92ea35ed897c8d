"""Images with boxes as COCO has them (arXiv:1405.0312), and Roboflow, CVAT, Label Studio and others write them.

    FOLDER/annotations/instances_train2017.json, FOLDER/train2017/*.jpg, ...    as published; or annotations/train.json
    FOLDER/train/_annotations.coco.json, FOLDER/train/*.jpg, ...                or train/annotations.json
    FOLDER/_annotations.coco.json or annotations.json                           split by a hash, see folders.py

Images are where the JSON file is, in its sub-folder images/, or in a folder of the split, itself or in images/. A
`bbox` is [x, y, width, height] in pixels, x and y from 0. An object of `iscrowd` is ignored, see data.dataset.Boxes.
Categories are numbered in the order of their ids.
"""

import json

from data.sources.boxes import Annotated, boxed_dataset, check_box
from data.sources.folders import SPLITS, check_regular, split_of_name, three_splits
from errors import UserError

FILES = ('_annotations.coco.json', 'annotations.json')


def holds_coco(folder):
    return any(_files(folder).values()) or _whole(folder) is not None


def open_coco(name, folder):
    files, names = _files(folder), []
    if (_whole(folder) is None) != bool(files['train']):
        raise UserError(f'`dataset` {folder} must have a JSON file of COCO either itself or for train. '
                        f'Received: {"both" if files["train"] else "neither"}')
    own, whole = {}, []
    for split, path in {**files, 'train': files['train'] or _whole(folder)}.items():
        examples, categories = _read(path, _folders(folder, path)) if path else (None, [])
        names = names or categories                     # of train, which comes first
        whole, own[split] = (examples, None) if split == 'train' else (whole, examples)
    del own['train']
    return boxed_dataset(name, folder, three_splits(own, whole, lambda one: split_of_name(one.file.stem)), names)


def _whole(folder):
    return next((folder / file for file in FILES if (folder / file).is_file()), None)


def _files(folder):
    """{split: its JSON file, or None}."""
    found = {}
    for split, names in SPLITS.items():
        tried = [path for name in names for path in (
            *sorted((folder / 'annotations').glob(f'instances_{name}*.json')), folder / 'annotations' / f'{name}.json',
            *(folder / name / file for file in FILES))]
        found[split] = next((path for path in tried if path.is_file()), None)
    return found


def _folders(folder, path):
    """Where the images of a JSON file may be."""
    name = path.stem.removeprefix('instances_')
    return [path.parent, path.parent / 'images', folder / name, folder / 'images' / name, folder / 'images']


def _read(path, folders):
    """([Annotated], [names of the categories])."""
    check_regular(path)
    try:
        content = json.loads(path.read_bytes())
        images, categories = (content[key] for key in ('images', 'categories'))
        annotations = content.get('annotations', [])
        names = {item['id']: item['name'] for item in categories}
        examples = {item['id']: Annotated(_find(path, folders, item['file_name']), path, [], _size(item))
                    for item in images}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'`dataset` {path} must be JSON with images (id, file_name) and categories (id, name). '
                        f'Received: {type(error).__name__}: {error}') from None
    if len(examples) < len(images) or len(set(names.values())) < len(categories):
        raise UserError(f'`dataset` {path} must have an id of its own for each image and category, and other names')
    for number, item in enumerate(annotations):
        example, *described = _object(f'{path}: annotations[{number}]', item, examples, names)
        example.objects.append(tuple(described))
    return list(examples.values()), [names[key] for key in sorted(names)]


def _find(path, folders, file):
    found = next((folder / file for folder in folders if (folder / file).is_file()), None)
    if found is None:
        raise UserError(f'`dataset` {path} names {file!r}, which is missing; '
                        f'looked in {", ".join(map(str, dict.fromkeys(folders)))}')
    return found


def _size(item):
    size = item.get('width'), item.get('height')
    return size if all(size) else None


def _object(place, item, examples, names):
    """An annotation -> (Annotated, box, class name, ignored)."""
    try:
        example, class_name = examples[item['image_id']], names[item['category_id']]
        x, y, width, height = map(float, item['bbox'])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'`dataset` {place} must have image_id and category_id of the file, and bbox: [x, y, width, '
                        f'height]. Received: {type(error).__name__}: {error}') from None
    box = check_box(place, (x, y, x + width, y + height))
    return example, box, class_name, bool(item.get('iscrowd'))
