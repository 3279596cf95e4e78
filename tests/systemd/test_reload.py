"""What a reload takes over, what it refuses, and what it leaves to a restart; without a host."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from tunrouter.agent import membership
from tunrouter.agent.reload import Reload, differences, live
from tunrouter.agent.service import Service
from tunrouter.config import Config, Given
from tunrouter.core import keys
from tunrouter.core.keys import generate_secret

ONE, TWO = (generate_secret(lambda size, n=number: bytes([n]) * size) for number in (1, 2))  # type: ignore[misc]


class FakeService:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def reloading(self) -> None:
        self.said.append("reloading")

    def reloaded(self, refusal: str = "") -> None:
        self.said.append(refusal or "ready")


class Host:
    """A configuration file, and an agent that was started with it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "config.toml"
        self.secrets = directory / "password"
        self.service = FakeService()
        self.adopted: list[tuple[Config, keys.KeyRing | None]] = []
        self.write(peers=["192.0.2.1"])
        self.keep_secrets(ONE)

    def write(self, **table: object) -> None:
        table = {"name": "a", "password_file": str(self.secrets)} | table
        self.file.write_text("".join(f"{name} = {value!r}\n" for name, value in table.items()))

    def keep_secrets(self, *secrets: str) -> None:
        self.secrets.touch(mode=0o600)
        self.secrets.write_text("\n".join(secrets))

    async def start(self) -> None:
        given = Given({"config": str(self.file)}, {})
        self.reload = Reload(given, cast("Service", self.service))
        self.task = asyncio.ensure_future(self.reload.keep(given.resolve().config, self._adopt))

    async def _adopt(self, config: Config, ring: keys.KeyRing | None) -> None:
        self.adopted.append((config, ring))

    async def again(self) -> str:
        """Reloads once; the refusal, or `ready`."""
        begun = len(self.service.said)
        self.reload.ask()
        async with asyncio.timeout(10):
            while len(self.service.said) < begun + 2:
                await asyncio.sleep(0.002)
        assert self.service.said[begun] == "reloading"
        return self.service.said[begun + 1]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def run(host: Host, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await host.start()
        try:
            await scenario()
        finally:
            host.task.cancel()

    asyncio.run(main())


def test_peers_and_the_log_level_are_taken_over_and_the_ring_stays(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        host.write(peers=["192.0.2.2"], log_level="debug", health_addr="127.0.0.1:6784")
        with caplog.at_level("INFO"):
            assert await host.again() == "ready"
            assert await host.again() == "ready"

    run(host, scenario)
    (config, ring), _ = host.adopted
    assert (config.peers, config.log_level, config.secrets) == (("192.0.2.2",), "debug", (ONE,))
    assert config.health_addr == "127.0.0.1:6784"
    assert ring is None
    assert [record.getMessage() for record in caplog.records] == [
        "the configuration was read again; changed: peers, health_addr, log_level",
        "the configuration was read again; changed: nothing",
    ]


def test_secrets_are_taken_over_in_their_order(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host.keep_secrets(TWO, ONE)
        with caplog.at_level("DEBUG"):
            assert await host.again() == "ready"

    run(host, scenario)
    ((config, ring),) = host.adopted
    assert config.secrets == (TWO, ONE)
    assert ring is not None
    assert ring.handshake_psks == membership.derive(config).handshake_psks
    assert "changed: password" in caplog.text
    assert ONE not in caplog.text
    assert TWO not in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = = 1", "not valid TOML"),
        ("prot = 1", "unknown key 'prot'"),
        ('peers = ["10.32.0.7"]', "lies inside the pods' range"),
        ('password = "x"\npassword_file = "/y"', "both"),
        (None, "does not exist"),
    ],
)
def test_what_is_wrong_is_refused_whole_in_one_line(
    host: Host, text: str | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        if text is None:
            host.file.unlink()
        else:
            host.file.write_text(f'name = "a"\nlog_level = "debug"\n{text}\n')
            host.file.chmod(0o600)
        refusal = await host.again()
        assert said in refusal
        assert refusal.isprintable()
        host.write(peers=["192.0.2.1"])
        assert await host.again() == "ready", "and what is right again is taken"

    run(host, scenario)
    assert [config.log_level for config, _ in host.adopted] == ["info"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("the new configuration is refused and the old one stays: ")


def test_a_damaged_key_is_refused_and_the_old_ring_stays(host: Host) -> None:
    async def scenario() -> None:
        host.keep_secrets(ONE[:-1] + ("a" if ONE[-1] != "a" else "b"))
        assert "checksum" in await host.again()
        host.keep_secrets(ONE)
        assert await host.again() == "ready"

    run(host, scenario)
    assert [ring for _, ring in host.adopted] == [None]


def test_what_only_a_restart_changes_is_named_every_time(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host.write(port=7000, mtu=1300, log_level="warning")
        assert await host.again() == "ready"
        assert await host.again() == "ready"

    run(host, scenario)
    assert [(config.port, config.mtu, config.log_level) for config, _ in host.adopted] == [(6783, 0, "warning")] * 2
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert lines == ["only a restart changes: port, mtu"] * 2


def test_encryption_is_not_switched_by_a_reload(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        host.file.write_text('name = "a"\n')
        assert await host.again() == "ready"

    run(host, scenario)
    ((config, ring),) = host.adopted
    assert config.secrets == (ONE,)
    assert ring is None
    assert "only a restart changes: password" in caplog.text
    plain = Config(name="a")
    assert live(plain, Config(name="a", secrets=(ONE,))) == plain


def test_what_is_asked_during_a_reload_is_one_more(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    held, entered = threading.Event(), threading.Event()
    derive = membership.derive

    def slow(config: Config) -> keys.KeyRing:
        entered.set()
        assert held.wait(10)
        return derive(config)

    monkeypatch.setattr(membership, "derive", slow)

    async def scenario() -> None:
        host.keep_secrets(TWO)
        host.reload.ask()
        async with asyncio.timeout(10):
            while not entered.is_set():
                await asyncio.sleep(0.002)
            for _ in range(5):
                host.reload.ask()
            held.set()
            while len(host.service.said) < 4:
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.05)

    run(host, scenario)
    assert host.service.said == ["reloading", "ready"] * 2


def test_an_error_of_ours_does_not_end_reloading(host: Host) -> None:
    async def scenario() -> None:
        adopt = host._adopt
        host._adopt = lambda *_: 1 / 0  # type: ignore[method-assign,assignment]
        host.task.cancel()
        await host.start()
        assert "ZeroDivisionError" in await host.again()
        host.task.cancel()
        host._adopt = adopt  # type: ignore[method-assign]

    run(host, scenario)


def test_names_of_keys_are_those_of_the_file() -> None:
    one = Config(name="a", secrets=(ONE,), workers=2)
    assert differences(one, Config(name="a")) == ["workers", "password"]
    assert differences(one, one) == []
