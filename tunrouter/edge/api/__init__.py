"""The agent's API: its messages; `server` (asyncio) and `client` (plain sockets) are imported by who needs them."""

from tunrouter.edge.api.messages import (
    VERSION,
    Answer,
    AttachCall,
    Attachment,
    BenchCall,
    BenchOffer,
    Call,
    ConnectCall,
    DetachCall,
    Failure,
    ForgetCall,
    Request,
    StatusCall,
)

__all__ = [
    "VERSION",
    "Answer",
    "AttachCall",
    "Attachment",
    "BenchCall",
    "BenchOffer",
    "Call",
    "ConnectCall",
    "DetachCall",
    "Failure",
    "ForgetCall",
    "Request",
    "StatusCall",
]
