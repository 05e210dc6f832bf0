"""Checkpoints and held-out data in, an evaluation report out."""

CODE_VERSION = "13"
