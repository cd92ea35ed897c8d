"""The runtime of jax, PJRT, for the same training run: on TPUs and GPUs that TensorFlow itself cannot drive.

TensorFlow traces a step and lowers it to XLA's terms, once, as strategies/preflight does; jax compiles and runs it, one
replica on each device of a mesh. Data come from the same tf.data pipeline. The run's state lies on the devices, and
comes to TensorFlow's variables where they are read: for a checkpoint and for the export. Only public functions of jax
are called here; strategies/preflight/artifact.py, which carries HLO to StableHLO, needs a few others.
"""
