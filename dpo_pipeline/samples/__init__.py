"""The bundled customer-service scenario: a seeded generator with planted, recorded faults; no stored data."""
