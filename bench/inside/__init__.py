"""What the bench runs inside a node, with the agent's own packages: ``python3 -m bench.inside.push``."""
