"""`python -m tunrouter.agent --config-fd N`: what `tunrouter up` becomes."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys

from tunrouter.errors import ConfigError, TunrouterError


def main(arguments: list[str]) -> int:
    """The exit code. One line says what went wrong."""
    try:
        if len(arguments) != 2 or arguments[0] != "--config-fd" or not arguments[1].isdecimal():
            raise ConfigError("the agent is not started by hand", "start it with: tunrouter up")
        from tunrouter.config import read_handed_over

        config, given = read_handed_over(int(arguments[1]))
        os.umask(0o077)
        if sys.stderr is not None:
            faulthandler.enable()  # an agent that its watchdog aborts says where it stood
        import uvloop

        from tunrouter.agent import process
        from tunrouter.agent.life import run
        from tunrouter.daemon import logs

        logs.configure(config.log_level, json=config.log_format == "json")
        process.keep_secrets_in_memory()
        gc.freeze()  # what start-up made lives as long as the process
        uvloop.run(run(config, given))
    except TunrouterError as error:
        print(f"tunrouter: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
