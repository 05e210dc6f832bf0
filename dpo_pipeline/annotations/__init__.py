"""Annotation exports in; judgments, demonstrations and rejected records out. One small module per export format."""

CODE_VERSION = "9"
