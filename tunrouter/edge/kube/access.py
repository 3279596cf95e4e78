"""Where the API server is, and what we show to it: address, certificate authority, the service account's token.

Law: token and authority are files that the kubelet replaces (a token lives an hour), so both are looked at before each
use and read again when they changed; what cannot be read at the moment leaves the last one in force. A token is shown
to a verified server alone: without TLS only to this host itself.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from tunrouter.edge.kube.faults import AccessError

SERVER: Final = "TUNROUTER_APISERVER"
HOST: Final = "KUBERNETES_SERVICE_HOST"
PORT: Final = "KUBERNETES_SERVICE_PORT"
ACCOUNT: Final = "TUNROUTER_SERVICE_ACCOUNT"
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API_PORT: Final = 6443
"""Where an API server listens, if only its host is given."""
FILE_BYTES: Final = 1 << 20

_UNUSABLE: Final = (ssl.SSLError, ValueError, TypeError)
"""What OpenSSL and Python say of a text that is no certificate."""
Stamp = tuple[int, int, int]


class WatchedFile:
    """A file that others replace. Its text is that of the last time that it could be read and was not empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: Stamp | None = None
        self._text = ""

    def changed(self) -> bool:
        """Whether the text is another than at the last call."""
        stamp = self._look()
        if stamp is None or stamp == self._stamp:
            return False
        return self.read(stamp)

    def read(self, stamp: Stamp | None = None) -> bool:
        """Reads it whatever its stamp says. Whether the text is another."""
        try:
            with self.path.open() as file:
                text = file.read(FILE_BYTES).strip()
        except (OSError, UnicodeDecodeError):
            return False
        if not text:
            return False
        self._stamp = stamp
        changed, self._text = text != self._text, text
        return changed

    @property
    def text(self) -> str:
        return self._text

    def _look(self) -> Stamp | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size


class Access:
    """One API server. Raises AccessError at the start only."""

    def __init__(self, url: str, directory: Path = SERVICE_ACCOUNT) -> None:
        parts = _split(url)
        self.host = parts.hostname or ""
        self.secure = parts.scheme == "https"
        self.port: int = parts.port or (443 if self.secure else 80)
        self.authority = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        """For the Host header."""
        self._token = WatchedFile(directory / "token")
        self._authority = WatchedFile(directory / "ca.crt")
        self._context: ssl.SSLContext | None = None
        self._shows_token = self.secure or _is_loopback(self.host)
        self._token.changed()
        if self.secure:
            self._require(directory)

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}"

    def token(self) -> str:
        """Empty where there is none to show."""
        if not self._shows_token:
            return ""
        self._token.changed()
        return self._token.text

    def renew(self, shown: str) -> bool:
        """After a 401: whether there is another token than the one that was shown."""
        self._token.read()
        return self.token() not in ("", shown)

    def context(self) -> ssl.SSLContext | None:
        """For a new connection; none without TLS."""
        if self.secure and (self._authority.changed() or self._context is None):
            try:
                context = ssl.create_default_context(cadata=self._authority.text)
            except _UNUSABLE:
                if self._context is None:
                    raise
            else:
                # Strict by default since Python 3.13; clusters' own authorities lack the key identifier that it wants.
                context.verify_flags &= ~ssl.VERIFY_X509_STRICT
                self._context = context
        return self._context

    def _require(self, directory: Path) -> None:
        mount = f"mount a service account at {directory} (a pod has one unless automountServiceAccountToken is false)"
        for file in (self._token, self._authority):
            file.changed()
            if not file.text:
                raise AccessError(f"{file.path} is missing, empty or not readable", mount)
        try:
            self.context()
        except _UNUSABLE as error:
            raise AccessError(f"{self._authority.path} is no certificate: {error}", mount) from None


def find(environ: Mapping[str, str], directory: Path | None = None) -> Access:
    """The server that the variables name: TUNROUTER_APISERVER, else the one that a kubelet tells every pod."""
    directory = directory or Path(environ.get(ACCOUNT) or SERVICE_ACCOUNT)
    if given := environ.get(SERVER, "").strip():
        return Access(_url(given), directory)
    if host := environ.get(HOST, "").strip():
        port = environ.get(PORT, "").strip() or "443"
        return Access(f"https://{_bracketed(host)}:{port}", directory)
    raise AccessError(
        f"neither {SERVER} nor {HOST} is set: this is no pod",
        f"run it in the cluster, or set {SERVER}=https://HOST:PORT",
    )


def _url(given: str) -> str:
    """A URL as it is; HOST (an IPv6 address with or without brackets) and HOST:PORT mean one with TLS."""
    if "://" in given:
        return given
    host = _bracketed(given)
    has_port = ":" in (host.rpartition("]")[2] if host.startswith("[") else host)
    return f"https://{host}" if has_port else f"https://{host}:{API_PORT}"


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def _split(url: str) -> SplitResult:
    """Raises AccessError."""
    fix = f"set {SERVER}=https://HOST:PORT"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise AccessError(f"{url!r} is no URL: {error}", fix) from None
    if not usable:
        raise AccessError(f"{url!r} is no URL of a server", fix)
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise AccessError(f"{url!r} has more than host and port", fix)
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
