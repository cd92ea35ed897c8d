"""Strings <-> ids, in the graph. A tokenizer has `encode`, `decode`, `pieces`, `special` ids, and `files`."""
