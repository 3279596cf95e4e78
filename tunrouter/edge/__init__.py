"""One outside thing a module: the kernel's netlink, nftables, a socket, a file. No protocol knowledge."""
