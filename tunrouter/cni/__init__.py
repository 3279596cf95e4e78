"""The language of container runtimes: the CNI specification's requests, results and errors, without doing anything.

environment, configuration ──> request.py ──> (agent/cni.py does it) ──> result.py ──> what the runtime reads
"""
