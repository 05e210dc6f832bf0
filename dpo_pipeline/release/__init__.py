"""A checkpoint in; what a user takes away out: weights, vendor files, cards."""

CODE_VERSION = "4"
