"""The parts of ``hubaudit serve``: what an event asks for, the queue that survives a restart, the work, the answers."""
