"""A model as one file for a runtime, compared with the model in torch before it has its name."""
