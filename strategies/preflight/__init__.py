"""What a run would cost on a TPU that is not there: the step is compiled for it, and the compiled program is read."""
