"""The HTTP service: a front that knows no torch, and for each model a process that decodes and answers."""
