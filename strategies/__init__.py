"""Which devices train: selection.py chooses, workers.py starts processes. Importing this imports no TensorFlow."""
