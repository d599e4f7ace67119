"""A problem trained on the parameter server: its gradients, how it is followed, and what is written of it."""
