"""A question from one process of this host to another, for a loop that must not stand still meanwhile.

Law: as `client.py` a connection a question, and every way to fail says what it was. It waits without a bound of its
own: who asks has the deadline.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from tunrouter.edge.api.messages import VERSION, Answer, Request
from tunrouter.edge.api.policing import PolicyCall
from tunrouter.errors import AgentAbsentError, AgentError, AgentSilentError, AgentUnreachableError

ANSWER_BYTES: Final = 1 << 20
_answers: Final = msgspec.json.Decoder(Answer)


async def ask(path: Path, call: PolicyCall, who: str) -> msgspec.Raw:
    """What `who` answers. Raises AgentUnreachableError if it does not, AgentError with its own words if it refuses."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES)
    except (FileNotFoundError, ConnectionRefusedError):
        raise AgentAbsentError(f"{who} does not answer on {path}") from None
    except OSError as error:
        raise AgentUnreachableError(f"{who} does not answer on {path}: {error.strerror or error}") from None
    try:
        writer.write(msgspec.json.encode(Request(call)) + b"\n")
        return _unpack(await reader.readuntil(b"\n"), who)
    except (asyncio.IncompleteReadError, OSError):
        raise AgentSilentError(f"{who} on {path} closed the connection") from None
    except asyncio.LimitOverrunError:
        raise AgentError(f"the answer of {who} is longer than {ANSWER_BYTES >> 20} MiB") from None
    finally:
        writer.transport.abort()


def _unpack(line: bytes, who: str) -> msgspec.Raw:
    try:
        answer = _answers.decode(line)
    except msgspec.MsgspecError as error:
        raise AgentError(f"the answer of {who} is not understood: {error}") from None
    if answer.error is not None:
        raise AgentError(answer.error.what, answer.error.fix)
    if answer.version != VERSION:
        raise AgentError(f"{who} speaks API version {answer.version}, and not {VERSION}")
    return answer.result
