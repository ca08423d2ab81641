"""Training: sequences, losses over them, stages and their recipes."""
