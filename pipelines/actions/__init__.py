"""What ``action.yml`` runs: the inputs, the protocol with the runner, and the memory between jobs."""
