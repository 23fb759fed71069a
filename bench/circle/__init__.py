"""The whole circle on a real cluster, timed: a workload that starts slowly, its checkpoint, its later pods.

``going`` goes round it, ``report`` holds what was seen and writes docs/benchmarks-circle.md.
"""
