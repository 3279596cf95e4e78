"""What a user may set: one frozen value, resolved once from flags, environment and file."""

from tunrouter.config.handover import Given, hand_over, read_handed_over
from tunrouter.config.model import DEFAULT_FILE, SOCKET_NAME, Config, Origin
from tunrouter.config.resolve import Resolved, resolve
from tunrouter.config.sources import File, read_file
from tunrouter.config.values import listening

__all__ = [
    "DEFAULT_FILE",
    "SOCKET_NAME",
    "Config",
    "File",
    "Given",
    "Origin",
    "Resolved",
    "hand_over",
    "listening",
    "read_file",
    "read_handed_over",
    "resolve",
]
