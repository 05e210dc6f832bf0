"""Words every stage uses: errors, digests, artifacts, ledger, books, settings, metrics, randomness."""
