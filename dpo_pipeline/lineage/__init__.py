"""Show, verify and trace what the ledger and the artifacts say; reads only."""
