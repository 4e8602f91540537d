"""Training: configuration, the order of samples, losses, the loop and its checkpoints."""
