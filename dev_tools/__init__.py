"""What ``./dev`` does once Python is there: checks, tests, the demo. Not shipped.

``checks`` runs the linters and pytest, ``demo`` the main job on real nodes.
"""
