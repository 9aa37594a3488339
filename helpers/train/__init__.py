"""Training: SFT with LoRA, QLoRA or all weights, and DPO, each behind a preflight that refuses to train wrongly."""
