"""Training: the step, the loop around it, evaluation, checkpoints and the log. Knows no dataset and no task by name."""
