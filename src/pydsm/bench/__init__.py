"""Measuring a group: put a load on it, count what comes back, keep every figure. Read `measure`, then `loads`.

`target` says what is measured, `workload` what is asked, `loads` how it is asked, `results` what is written down,
`compare` what differs between two files. It starts no replicas; whoever calls it does.
"""
