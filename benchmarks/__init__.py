"""tunrouter beside its rivals, and beside its own past: `make bench-compare`, `make bench-check`.

Law: everything in one ratio was measured in one run on one machine, in turns, by `tunrouter.bench`; who could not take
part is named with the reason. docs/benchmarks.md says what each scenario does, README.md here how to repeat it.
"""
