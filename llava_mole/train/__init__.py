"""Training: the run config, the trainer and its loss, checkpoints, the run directory."""
