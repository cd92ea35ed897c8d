"""Scores of what a model writes, computed on the host by the libraries that the field uses."""
