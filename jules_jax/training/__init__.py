"""Training: the loop, its market, checkpoints, monitoring and registry."""
