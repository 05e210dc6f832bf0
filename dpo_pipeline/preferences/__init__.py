"""Judgments of all drops -> consensus -> deduplicated, split preference pairs, and a report on the annotators."""

CODE_VERSION = "20"
