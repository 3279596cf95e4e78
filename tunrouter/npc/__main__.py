"""`python -m tunrouter.npc --config-fd N`: what `tunrouter npc` becomes."""

from __future__ import annotations

import asyncio
import gc
import sys

from tunrouter.errors import ConfigError, TunrouterError


def main(arguments: list[str]) -> int:
    """The exit code. One line says what went wrong."""
    try:
        if len(arguments) != 2 or arguments[0] != "--config-fd" or not arguments[1].isdecimal():
            raise ConfigError("weave-npc is not started by hand", "start it with: tunrouter npc")
        from tunrouter.config import read_handed_over

        config, _ = read_handed_over(int(arguments[1]))
        from tunrouter.daemon import logs
        from tunrouter.npc.life import run

        logs.configure(config.log_level, json=config.log_format == "json")
        gc.freeze()  # what start-up made lives as long as the process
        asyncio.run(run(config))
    except TunrouterError as error:
        print(f"tunrouter: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
