"""What `networking.k8s.io/v1` says of one packet, read from its reference alone: slow, obvious, and written first.

    raw objects of the API, as dicts ──> allowed(cluster, source, destination, protocol, port) ──> True or False

Law: nothing here knows the program that it judges. It imports the standard library and itself, and takes no object of
the API in any other form than that in which the server sends it: what an absent field means is what is judged.
"""
