"""The model as a stage sees it: chat template, loss mask, batches, log-probs, checkpoints. Heavy imports live here."""

CODE_VERSION = "2"
