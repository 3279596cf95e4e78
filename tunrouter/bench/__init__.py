"""Labs of network namespaces on one machine, and what is measured in them."""
