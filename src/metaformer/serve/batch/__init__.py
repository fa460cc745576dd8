"""Any number of images through one model, in parts: here or on a Ray cluster, and on again after a kill."""
