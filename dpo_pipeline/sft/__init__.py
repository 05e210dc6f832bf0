"""Demonstrations in, an SFT checkpoint out."""

CODE_VERSION = "10"
