"""What this node answers as an elector.

    RegisterAsk ──> of our epoch? ──> registers ──> the journal ──> on disk ──> RegisterTell

Law: nothing is answered before all that it follows from is on disk. Who is no elector of the epoch that is asked for
says so, and changes nothing. A new epoch begins here with all values of the one before, or not at all: they are kept
aside as they come and must add up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from tunrouter.core import asking, bounds, electorate, packed
from tunrouter.core.admission import Budget
from tunrouter.core.electorate import Configuration, Elector, Founding
from tunrouter.core.journal import ClusterRow, Journal
from tunrouter.core.outbox import Outbox
from tunrouter.core.registers import ELECTORS, Item, Name, Registers, Verdict, digest
from tunrouter.errors import ProtocolError

Reply = Callable[[asking.RegisterTell], None]
MARK_BYTES: Final = 8
"""With which a block may be freed, so that who did it knows."""
SERVES: Final = "serves"
"""Name of the row that says which epoch our registers are of."""


class Activation(msgspec.Struct, frozen=True, array_like=True):
    """The data of `ACTIVATE`: what begins, and what must have been copied."""

    configuration: Configuration
    count: int
    digest: int


_activation: Final = msgspec.msgpack.Decoder(Activation)


class Booth:
    """The elector's place at this node, taken or not. `began` is told when a new epoch begins here."""

    def __init__(
        self, own: Elector, journal: Journal, out: Outbox, began: Callable[[Configuration, float], None]
    ) -> None:
        self.own = own
        self.registers = Registers(journal)
        self.serves: Configuration | None = None
        """The epoch of which our registers are."""
        self.founding: Founding | None = None
        """While there is no cluster: with whom we found one."""
        self._journal = journal
        self._out = out
        self._began = began
        self._copies: dict[int, dict[Name, Item]] = {}
        """By epoch: what came of it so far."""
        self._budgets: dict[int, Budget] = {}

    # --- which epoch -------------------------------------------------------------------------------------------------
    @property
    def cluster(self) -> int:
        """Whose registers these are; the founders' common id while there is no cluster."""
        if self.serves is not None:
            return self.serves.cluster
        return self.founding.id if self.founding is not None else 0

    @property
    def epoch(self) -> int:
        return self.serves.epoch if self.serves is not None else 0

    @property
    def open(self) -> bool:
        return self.serves is not None or self.founding is not None

    def serve(self, configuration: Configuration, items: tuple[Item, ...]) -> None:
        """An elector of this epoch from now on; durable with this step."""
        self.serves, self.founding = configuration, None
        self._copies.clear()
        self.registers.become(configuration.epoch, items)
        self._journal.put(ClusterRow(SERVES, electorate.encode(configuration)))

    def resign(self) -> None:
        if self.serves is not None:
            self.serves = None
            self.registers.resign()
            self._journal.forget(ClusterRow(SERVES, b"").key)

    # --- questions ---------------------------------------------------------------------------------------------------
    def hear(self, node: int, ask: asking.RegisterAsk, reply: Reply, now: float) -> None:
        if self._over_budget(node, now):
            self._out.count("register_over_budget")
            return
        try:
            verdict, number, items = self._answer(ask, now)
        except ProtocolError:
            self._out.count("register_malformed")
            return
        tell = asking.RegisterTell(ask.id, verdict, number, items)
        self._journal.then(lambda _: reply(tell))

    def _over_budget(self, node: int, now: float) -> bool:
        if node == self.own.node:
            return False
        if len(self._budgets) > bounds.MAX_PEERS:
            self._budgets.clear()
        budget = self._budgets.get(node)
        if budget is None:
            rate = bounds.REGISTER_ASKS_PER_SECOND
            budget = self._budgets[node] = Budget(rate, rate)
        if budget.empty(now):
            return True
        budget.take(now)
        return False

    def _answer(self, ask: asking.RegisterAsk, now: float) -> tuple[int, int, tuple[Item, ...]]:
        if ask.verb == asking.COPY:
            return self._copy(ask), 0, ()
        if ask.verb == asking.ACTIVATE:
            return self._activate(ask, now), 0, ()
        if not self.open or ask.cluster != self.cluster or ask.ballot.epoch != self.epoch:
            return Verdict.ELSEWHERE, 0, ()
        if self.serves is None and any(item.name != Name(ELECTORS, 0) for item in ask.items):
            return Verdict.ELSEWHERE, 0, ()
        return self._ask_registers(ask)

    def _ask_registers(self, ask: asking.RegisterAsk) -> tuple[int, int, tuple[Item, ...]]:
        names = tuple(item.name for item in ask.items)
        match ask.verb:
            case asking.PREPARE:
                return self.registers.prepare(ask.ballot, names, final=ask.final)
            case asking.ACCEPT:
                _check(ask.items)
                return *self.registers.accept(ask.ballot, ask.items, final=ask.final), ()
            case asking.READ:
                return Verdict.DONE, 0, self.registers.read(names)
            case asking.FIND if ask.items:
                (item, *_) = ask.items
                return Verdict.DONE, 0, self.registers.page(item.name, lambda value: value.holder == item.value.holder)
            case asking.SCAN if len(ask.items) == 2:
                return self._scan(*ask.items)
        raise ProtocolError("verb")

    def _scan(self, chosen: Item, after: Item) -> tuple[int, int, tuple[Item, ...]]:
        if chosen.name != Name(ELECTORS, self.epoch) or chosen.value.version != 1:
            raise ProtocolError("scan")
        if not self.registers.frozen:
            _check((chosen,))
            verdict, higher = self.registers.accept(chosen.ballot, (chosen,), final=True)
            if verdict != Verdict.DONE:
                return verdict, higher, ()
        return Verdict.DONE, 0, self.registers.page(after.name, lambda value: True)

    # --- another epoch -----------------------------------------------------------------------------------------------
    def _later(self, configuration: Configuration) -> bool:
        """Whether it is one that we may begin with, being one of its electors."""
        if self.own not in configuration.electors:
            return False
        if self.serves is None:
            return True
        return configuration.cluster == self.serves.cluster and configuration.epoch > self.serves.epoch

    def _copy(self, ask: asking.RegisterAsk) -> int:
        configuration = electorate.decode(ask.data)
        if not self._later(configuration):
            return Verdict.DONE if self.serves == configuration else Verdict.ELSEWHERE
        if configuration.epoch not in self._copies:
            self._copies = {configuration.epoch: {}}  # one at a time
        _check(ask.items)
        copy = self._copies[configuration.epoch]
        copy.update({item.name: item for item in ask.items})
        if len(copy) > bounds.MAX_BLOCKS:
            self._copies.clear()
            raise ProtocolError("copy")
        return Verdict.DONE

    def _activate(self, ask: asking.RegisterAsk, now: float) -> int:
        activation = packed.read(_activation, ask.data, "activation")
        configuration = activation.configuration
        electorate.check(configuration)
        if not self._later(configuration):
            return Verdict.DONE if self.serves == configuration else Verdict.ELSEWHERE
        items = tuple(self._copies.get(configuration.epoch, {}).values())
        if len(items) != activation.count or digest(items) != activation.digest:
            return Verdict.FROZEN
        self.serve(configuration, items)
        self._began(configuration, now)
        return Verdict.DONE


def _check(items: tuple[Item, ...]) -> None:
    """Raises ProtocolError for a value that its register cannot have."""
    for name, _, value in ((item.name, item.ballot, item.value) for item in items):
        if name.kind == ELECTORS:
            if electorate.decode(value.data).epoch != name.number + 1 or value.version != 1:
                raise ProtocolError("electors of another epoch")
        elif len(value.data) > MARK_BYTES or name.number >= bounds.MAX_BLOCKS:
            raise ProtocolError("block register")
