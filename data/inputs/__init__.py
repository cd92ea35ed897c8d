"""One kind of raw input -> what a model reads. Training, evaluation and the served model share these functions."""
