"""Preference pairs and reference log-probs in, a DPO checkpoint out."""

CODE_VERSION = "6"
