"""The chart ``snap``, and what is written from it into ``deploy/kubernetes``: one source for both.

``rendering`` runs Helm; ``python -m deploy.helm`` (``./dev manifests``) writes it anew.
"""
