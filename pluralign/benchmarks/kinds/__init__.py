"""What benchmarks have in common: their parts, question files, answers, readings, verdicts and the manifest."""
