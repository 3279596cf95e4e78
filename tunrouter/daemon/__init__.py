"""What our processes that run for long have in common, whatever they do: the log, and a place to be asked over HTTP."""
