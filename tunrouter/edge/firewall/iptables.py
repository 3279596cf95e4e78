"""iptables through its own commands: reading what `iptables-save` prints, and putting tagged accepts at a chain's head.

Law: both backends (nf_tables and legacy) may be in use at once, each with rules the other does not see, so each is read
and written by its own commands. A change is one `iptables-restore --noflush`: our old rules of a chain go and the new
ones stand at its head in the same transaction. Ours are known by their comment alone.
"""

from __future__ import annotations

import shlex
from typing import Final

from tunrouter.edge.firewall.command import run
from tunrouter.edge.firewall.rules import Chain, Condition, Rule
from tunrouter.errors import HostError

TAG: Final = "tunrouter"
BACKENDS: Final = ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")
SAVE, RESTORE = "-save", "-restore"
LOCK_SECONDS: Final = "5"
FIELDS: Final = {
    "-i": "input",
    "-o": "output",
    "-s": "source",
    "-d": "destination",
    "-p": "protocol",
    "--dport": "port",
    "--dports": "port",
    "--ctstate": "state",
    "--state": "state",
    "--dst-type": "destination type",
}
VERDICTS: Final = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
VALUELESS: Final = frozenset({"-m", "--comment"})
"""Options whose value is no condition of its own."""


class Filter:
    """The filter table of one backend as it was when read."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.chains: dict[str, Chain] = {}
        self.tagged: list[str] = []
        """Our rules as `-A CHAIN …` lines."""
        for line in run([backend + SAVE, "-t", "filter"]).splitlines():
            self._read(line)

    @property
    def version(self) -> int:
        return 6 if self.backend.startswith("ip6") else 4

    def _read(self, line: str) -> None:
        if line.startswith(":"):
            name, policy = line[1:].split()[:2]
            hook = {"FORWARD": "forward", "INPUT": "input"}.get(name, "")
            self.chains[name] = Chain([], {"ACCEPT": "accept", "DROP": "drop"}.get(policy, ""), hook)
        elif line.startswith("-A "):
            words = shlex.split(line)
            chain = self.chains.setdefault(words[1], Chain([]))
            chain.rules.append(parse(words[2:], line))
            if _comment(words) == TAG:
                self.tagged.append(line)

    def accept(self, chain: str, matches: list[list[str]]) -> None:
        """Accepts for `matches` at the head of `chain`, in place of those we had there."""
        old = [line for line in self.tagged if line.startswith(f"-A {chain} ")]
        new = [
            shlex.join(["-I", chain, str(at), *match, "-m", "comment", "--comment", TAG, "-j", "ACCEPT"])
            for at, match in enumerate(matches, 1)
        ]
        self._restore([f"-D{line[2:]}" for line in old] + new)

    def remove(self) -> list[str]:
        """Takes our rules away again; answers with the chains that had some."""
        if self.tagged:
            self._restore([f"-D{line[2:]}" for line in self.tagged])
        return sorted({f"{self.backend} accepts in {line.split()[1]}" for line in self.tagged})

    def _restore(self, lines: list[str]) -> None:
        text = "\n".join(["*filter", *lines, "COMMIT", ""])
        # -w: the legacy lock is shared with every other program that writes rules.
        wait = ["-w", LOCK_SECONDS] if self.backend.endswith("legacy") else []
        try:
            run([self.backend + RESTORE, "--noflush", *wait], text)
        except HostError as error:
            fix = "see which program holds or rewrites these rules, or start with --no-host-firewall"
            raise HostError(f"{self.backend} refused our accepts: {error.what}", fix) from None


def parse(words: list[str], text: str = "") -> Rule:
    """One rule as `iptables-save` prints it, after `-A CHAIN`."""
    conditions: list[Condition] = []
    negated, index = False, 0
    while index < len(words):
        word = words[index]
        value = words[index + 1] if index + 1 < len(words) else ""
        index += 1
        if word == "!":
            negated = True
            continue
        if word in {"-j", "-g"}:
            return _with_target(tuple(conditions), word, value, text)
        if word in FIELDS:
            conditions.append(_condition(FIELDS[word], value, negated))
            index += 1
        elif word in VALUELESS:
            index += 1
        elif word.startswith("-"):
            conditions.append(Condition(f"{word} {value}"))
        negated = False
    return Rule(tuple(conditions), "", "", text)


def _with_target(conditions: tuple[Condition, ...], word: str, target: str, text: str) -> Rule:
    if word == "-g":
        return Rule(conditions, "goto", target, text)
    if target in VERDICTS:
        return Rule(conditions, VERDICTS[target], "", text)
    # An extension such as LOG or MARK is no chain: the walk finds nothing under its name and goes on.
    return Rule(conditions, "jump", target, text)


def _condition(field: str, value: str, negated: bool) -> Condition:
    values = tuple(value.split(","))
    if field in {"input", "output"}:
        values = tuple(item[:-1] + "*" if item.endswith("+") else item for item in values)
    elif field == "port":
        values = tuple(item.replace(":", "-") for item in values)
    elif field == "state":
        values = tuple(item.lower() for item in values)
    return Condition(field, values, negated)


def _comment(words: list[str]) -> str:
    return words[words.index("--comment") + 1] if "--comment" in words[:-1] else ""
