"""What this node can do and how it is: probe, readiness with remedies, vitals, which pods run here.

Reads and asks, changes nothing.
"""
