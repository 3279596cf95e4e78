"""A certificate authority for one run, and a server's certificate signed by it, made by openssl."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tunrouter.bench.namespaces import run

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificates(NamedTuple):
    authority: Path
    certificate: Path
    key: Path


def make(directory: Path, *addresses: str) -> Certificates:
    """For a server at these addresses, which are named as such."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Certificates(directory / "ca.crt", directory / "server.crt", directory / "server.key")
    authority_key, request, names = directory / "ca.key", directory / "server.csr", directory / "names"
    run(["openssl", "req", "-x509", *_CURVE, "-keyout", str(authority_key), "-out", str(made.authority),
         "-days", "2", "-subj", "/CN=kubernetes"])  # fmt: skip
    run(["openssl", "req", *_CURVE, "-keyout", str(made.key), "-out", str(request), "-subj", "/CN=kube-apiserver"])
    names.write_text("subjectAltName=DNS:kubernetes,DNS:localhost" + "".join(f",IP:{each}" for each in addresses))
    run(["openssl", "x509", "-req", "-in", str(request), "-CA", str(made.authority), "-CAkey", str(authority_key),
         "-CAcreateserial", "-out", str(made.certificate), "-days", "2", "-extfile", str(names)])  # fmt: skip
    return made
