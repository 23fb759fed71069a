"""A real Kubernetes cluster on one machine, on the nodes and registries of ``deploy.devnode``.

``layout`` names things, ``building`` makes the programs from source, ``pki`` the certificates, ``daemons`` and
``controlplane`` run etcd and Kubernetes' own programs, ``kubelet`` makes a devnode a node of the cluster, ``runtimes``
gives it another container runtime, ``lifecycle`` starts and removes the whole. Needs root.
"""
