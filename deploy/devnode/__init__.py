"""Real container nodes on one machine: own namespaces, containerd, runc and CRIU, and two TLS registries.

``instance`` names things, ``rootfs`` makes the node's root tree, ``node``, ``registries`` and ``network`` run the
parts, ``teardown`` removes every trace, ``world`` is the handle that tests and the demo hold. Needs root.
"""
