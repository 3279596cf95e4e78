"""Other programs' firewalls: who would drop our traffic, and the accepts that keep it alive."""

from __future__ import annotations

from tunrouter.edge.firewall.accepts import Drop, Firewall

__all__ = ["Drop", "Firewall"]
