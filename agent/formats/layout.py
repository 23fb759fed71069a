"""Where things lie in a checkpoint: the folder of parts on a node and the archive's member names.

Source: the layout that containerd's and CRI-O's checkpoint code write and read (``checkpoint/``, ``config.dump``,
``spec.dump``, ``status.dump``, ``rootfs-diff.tar``, ``stats-dump``, ``dump.log``); members under ``snap/`` are ours.
"""

from __future__ import annotations

from typing import Final

CHECKPOINT_DIR: Final = "checkpoint"  # CRIU's images
CONFIG_DUMP: Final = "config.dump"
SPEC_DUMP: Final = "spec.dump"
STATUS_DUMP: Final = "status.dump"
ROOTFS_DIFF: Final = "rootfs-diff.tar"  # plain tar with OCI whiteouts
DUMP_LOG: Final = "dump.log"
STATS_DUMP: Final = "stats-dump"
CONTAINER_LOG: Final = "container.log"
SNAP_DIR: Final = "snap"
FINGERPRINT: Final = "snap/fingerprint.json"
TEMPLATE: Final = "snap/template.json"
CRIU_CONF: Final = "snap/criu.conf"
ROOT_MODE: Final = "snap/root-mode"  # octal mode of the container's /, one line
SHM_TAR: Final = "snap/shm.tar"
VOLUMES_DIR: Final = "snap/volumes"  # <volume name>.tar
VOLUMES_INDEX: Final = "snap/volumes.json"  # [{"name", "destination", "kind"}]
RECORD: Final = "snap.json"  # beside the parts on the node, not a member of the archive

ANNOTATION_PREFIX: Final = "snap.weaversoft.io/"
ANNOTATION_CHECKPOINT: Final = ANNOTATION_PREFIX + "checkpoint"  # JSON {container: image@digest}
ANNOTATION_RESTORE_AGAIN: Final = (
    ANNOTATION_PREFIX + "restore-on-restart"
)  # "true": restarts restore too
ANNOTATION_RESTORE_MODE: Final = ANNOTATION_PREFIX + "restore-mode"  # eager, lazy, auto
