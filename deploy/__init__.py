"""How SNAP is brought onto machines; ``devnode`` makes real nodes on one machine for tests and the demo.

Nothing here is imported by ``agent`` or ``controlplane``.
"""
