"""Benchmarks of a group: generate a load, measure the answers, record every figure. Read `measure`, then `loads`.

`target` describes the measured group, `workload` the requests, `loads` their timing, `results` the result file, and
`compare` the differences of two files. The caller starts the replicas.
"""
