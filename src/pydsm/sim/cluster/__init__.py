"""The simulated group: replicas' processes, their hosts and clients, faults, and the world that runs them."""
