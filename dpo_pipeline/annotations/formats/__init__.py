"""One small module per export format: NAME, `recognise(sample) -> 0..1` and `parse(record, rules) -> parts`."""
