"""The parts of a run, put together: its data, model and training, its folder, its export, its compilation for a TPU."""
