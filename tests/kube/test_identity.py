"""Who we are to the API server: tokens that expire, rights that lack, authorities that are replaced, and strangers."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path

import pytest

from tests.kube.apiserver import Served, serving
from tests.kube.apiserver.certificates import Certificates, make
from tests.kube.reflecting import client_of, requests, run
from tunrouter.edge.kube.faults import RefusedError, UnreachableError
from tunrouter.edge.kube.objects import CONFIGMAPS, NODES, ConfigMap, Metadata


def test_who_we_are_and_what_we_may_do(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        served.do(lambda server: setattr(server.rights, "tokens_wanted", True))
        served.do(lambda server: setattr(server.rights, "enforced", True))
        served.mount(tmp_path, "system:serviceaccount:kube-system:weave-net")
        async with client_of(served.access(tmp_path)) as client:
            with pytest.raises(RefusedError, match='cannot list resource "nodes" in API group ""') as refused:
                await client.list(NODES)
            assert "manifest" in refused.value.fix
        (tmp_path / "token").write_text("nonsense")
        async with client_of(served.access(tmp_path)) as client:
            with pytest.raises(RefusedError, match="Unauthorized"):
                await client.list(NODES)
            assert requests(served, "list") == 2

    run(scenario())


@pytest.mark.parametrize("hidden", [False, True])
def test_an_expired_token_is_renewed(served: Served, tmp_path: Path, hidden: bool) -> None:
    """`hidden`: nothing about the file tells that it is another, so that only the 401 does."""

    async def scenario() -> None:
        served.do(lambda server: setattr(server.rights, "tokens_wanted", True))
        old = served.mount(tmp_path)
        status = (tmp_path / "token").stat()
        async with client_of(served.access(tmp_path)) as client:
            await client.list(NODES)
            served.do(lambda server: server.rights.expire(old))
            new = served.do(lambda server: server.rights.token())
            with (tmp_path / "token").open("r+") as file:
                file.write(new)
            if hidden:
                os.utime(tmp_path / "token", ns=(status.st_atime_ns, status.st_mtime_ns))
            await client.create(CONFIGMAPS, ConfigMap(metadata=Metadata(name="x", namespace="default")))
            assert requests(served, "create") == (2 if hidden else 1)
            assert client.counts["create", "configmaps", "201"] == 1

    run(scenario())


def test_a_new_authority_and_a_stranger(tmp_path: Path) -> None:
    """The cluster's certificates are renewed while we run; what an unknown authority vouches for is not talked to."""

    async def scenario(served: Served) -> None:
        async with client_of(served.access(tmp_path / "sa")) as client:
            await client.list(NODES)
            made = make(tmp_path / "new", "127.0.0.1")
            served.do(lambda server: server.down())
            served.do(lambda server: server.listener.open("127.0.0.1", client.access.port, _context(made)))
            with pytest.raises(UnreachableError, match="certificate that is not trusted"):
                await client.list(NODES)
            assert client.counts["list", "nodes", "unreachable"] == 1
            shutil.copy(made.authority, tmp_path / "sa" / "ca.crt")
            await client.list(NODES)

    with serving(tmp_path / "tls") as served:
        served.mount(tmp_path / "sa")
        run(scenario(served))


def _context(made: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    return context
