"""NetworkPolicy: from the cluster's objects to the rules of one node.

    model.py ──> (compiler) ──> rule set, a value ──> (nftables) the text of a transaction

Law: `networking.k8s.io/v1` as its reference says. Everything here is a function of what is known.
"""
