"""Packages of the extra `text`, imported when they are needed."""

import importlib

import tensorflow as tf

from errors import UserError


def text_package(name):
    """Imports a package of the extra `text`, which only some datasets need."""
    try:
        return importlib.import_module(name)
    except (ImportError, tf.errors.NotFoundError) as error:      # the latter: built for another TensorFlow
        raise UserError(f'`dataset` needs the package {name}, which cannot be imported '
                        f'({" ".join(str(error).split())[:200]}): pip install -e ".[text]"') from None
