"""What is learnt: each task counts, loses, decodes and judges. Tasks do not know each other."""
