"""A Hub-compatible server on loopback, for tests, the demo and the benchmarks.

``localhub.server.LocalHub`` is the way in. Requests walk ``server`` (sockets) → ``faults`` and ``throttle`` →
``routes`` (which function answers) → ``api_*``, ``files`` or ``pages`` → ``store`` (repositories) and back as a
``wire.Reply``. Nothing here knows about the code under test.
"""
