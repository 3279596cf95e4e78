"""NetworkPolicy: the program against a slow evaluator of its specification, over drawn clusters."""
