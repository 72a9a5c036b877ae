"""Messages between replicas: `base` is the interface, `tcp` the default, `zeromq` an extra, `memory` for tests.

`frames` is the wire format, `handshake` says who is let in, `tls` what a certificate is worth. The same contract suite
runs against every transport.
"""
