"""Whole clusters in one process: the real core on a virtual clock and network, for tests and for planning."""
