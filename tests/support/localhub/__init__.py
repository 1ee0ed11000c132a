"""A Hub-compatible server on loopback, for tests, the demo and the benchmarks.

``localhub.server.LocalHub`` is the way in; tests take the fixture ``hub_server``::

    hub_server.add_repo("org/model", {"README.md": "# Hello", "model.safetensors": Path("weights.safetensors")})
    hub_server.faults.add(Status(code=503), path="model.safetensors", times=2)
    ...
    assert hub_server.log.count("model.safetensors", status=206) == 1

Requests walk ``server`` (sockets) → ``faults`` and ``throttle`` →
``routes`` (which function answers) → ``api_*``, ``files`` or ``pages`` → ``store`` (repositories) and back as a
``wire.Reply``. Nothing here knows about the code under test.
"""
