"""Registry configs, and the little that the control plane itself says to a registry.

``configs`` keeps them, ``address`` reads their urls, ``client`` logs in and deletes manifests over HTTP.
Images are pushed and pulled by the agents, never from here.
"""
