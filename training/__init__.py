"""What one runs: training on top of the models. Importing this folder imports none of it."""
