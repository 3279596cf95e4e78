"""The agent: joins core, data plane, host and edges into one process."""
