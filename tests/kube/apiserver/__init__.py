"""An API server of Kubernetes for tests: real HTTP and TLS, the resources that we use, faults on command.

In a thread of the test: `serving`. As a program, for clients in other namespaces: `python -m tests.kube.apiserver`.
"""

from tests.kube.apiserver.server import ApiServer
from tests.kube.apiserver.serving import Served, serving

__all__ = ["ApiServer", "Served", "serving"]
