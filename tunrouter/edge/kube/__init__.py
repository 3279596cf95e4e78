"""The cluster's API server: `access` finds it, `client` asks it, `reflector` keeps some of its objects in memory."""
