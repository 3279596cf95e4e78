"""The `tunrouter` command.

Law: before anything else the password leaves the process's command line, so this file and `argv` import only the
standard library, and of that as little as possible. Users see one line, `tunrouter: WHAT; FIX`, never a traceback.
"""

import sys

from tunrouter.cli.argv import hide_password

LASTING = ("up", "npc")
"""Commands that become a process which ends in order."""


def main() -> None:
    """Runs the command line and exits: 0 done, 1 failed or unhealthy, 2 usage or configuration, 3 no agent."""
    hidden = hide_password()
    if next((word for word in sys.argv[1:] if not word.startswith("-")), "") in LASTING:
        from tunrouter.daemon import signals

        signals.hold()
    from tunrouter.cli.run import run

    sys.exit(run(sys.argv[1:], password_shown=hidden))
