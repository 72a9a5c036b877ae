"""Messages between replicas: `base` is the interface, `tcp` the default, `zeromq` an extra, `memory` for tests.

`frames` is the wire format, `handshake` decides which peers are accepted, `tls` checks certificates. The same contract
suite runs against every transport.
"""
