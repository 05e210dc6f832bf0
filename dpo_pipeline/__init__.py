"""Annotation exports in, an aligned language model out; every byte in between can be traced and made again.

A folder is a stage, in the order of the data: annotations, preferences, modeling, sft, dpo, evaluation, release;
lineage reads what they leave behind. The library knows no orchestrator and no tracking server.
"""

__version__ = "0.1.0"
