"""`tunrouter` whose agent is the stub, so that `up` needs no network."""

from __future__ import annotations

from tunrouter.cli import main

if __name__ == "__main__":
    from tunrouter.cli import up

    up.AGENT = "tests.cli.stub_agent"
    main()
