"""Published checkpoints that transformers has no class for, rewritten for a native class that computes the same."""
