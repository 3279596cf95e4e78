"""NetworkPolicy against its specification: a slow evaluator of raw API objects, drawn clusters, and what was planted."""
