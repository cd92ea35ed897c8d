"""Asks TensorFlow Serving about an image file or a text, by REST, and prints the label or the translation.

    python -m experiment.client http://localhost:8501/v1/models/digits --image=tests/images/digit.png

Needs nothing but Python: this file can be copied to where the client is.
"""

import argparse
import base64
import json
import pathlib
import sys
import urllib.request
from http.client import HTTPException
from urllib.error import HTTPError


def ask(model, image=None, text=None):
    """The outputs {name: value} of a model, given by its address, for the path of an image file or for a text."""
    request = {'instances': [text]}
    if image:
        content = base64.b64encode(pathlib.Path(image).read_bytes()).decode()
        request = {'signature_name': 'encoded', 'instances': [{'b64': content}]}
    request = urllib.request.Request(f'{model}:predict', json.dumps(request).encode(),
                                     {'Content-Type': 'application/json'})      # KServe reads JSON only if it is told
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)['predictions'][0]


def main():
    parser = argparse.ArgumentParser('python -m experiment.client', description=__doc__.partition('\n')[0])
    parser.add_argument('model', help='Address of a model: http://HOST:8501/v1/models/NAME.')
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument('--image', help='Path of an image file, for a model that classifies images.')
    asked.add_argument('--text', help='Text, for a model that classifies or translates texts.')
    args = parser.parse_args()
    try:
        answer = ask(**vars(args))
    except HTTPError as error:      # the server's own words
        sys.exit(f'{error.url}: {" ".join(error.read().decode(errors="replace").split())}')
    except (OSError, ValueError, LookupError, HTTPException) as error:      # no such file, host, scheme or server
        sys.exit(f'{args.model}: {type(error).__name__}: {error}')
    label = f'{answer["label"]} ({max(answer["probabilities"]):.1%})' if 'label' in answer else json.dumps(answer)
    print(answer.get('text', label))


if __name__ == '__main__':
    main()
