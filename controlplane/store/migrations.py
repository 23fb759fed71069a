"""The schema, as the list of steps that lead to it. A released step is never changed; add another.

Times are RFC 3339 UTC text with milliseconds and ``Z``, so they sort as they are. ``*_json``
columns hold JSON.
"""

from __future__ import annotations

from typing import Final

_FIRST: Final = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE users (
  username TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  email TEXT NOT NULL DEFAULT '',
  role TEXT NOT NULL CHECK (role IN ('administrator', 'operator', 'viewer')),
  password_hash TEXT NOT NULL,
  namespaces_json TEXT NOT NULL DEFAULT '[]',
  token_generation INTEGER NOT NULL DEFAULT 0,  -- raised to end every login of the user
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE revoked_tokens (
  token_id TEXT PRIMARY KEY,
  expires_at TEXT NOT NULL  -- when the row may be forgotten
) STRICT;

CREATE TABLE secrets (
  name TEXT PRIMARY KEY,    -- registry/<name>, cluster/<name>, user/<name>, job/<id>, system/<what>
  sealed BLOB NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE registries (
  name TEXT PRIMARY KEY,
  url TEXT NOT NULL,        -- as it was given
  host TEXT NOT NULL,       -- host[:port]
  path TEXT NOT NULL DEFAULT '',
  repo TEXT NOT NULL DEFAULT '',
  username TEXT NOT NULL DEFAULT '',  -- the password is the secret registry/<name>
  verify_ssl INTEGER NOT NULL DEFAULT 1,
  plain_http INTEGER NOT NULL DEFAULT 0,
  ca_pem TEXT NOT NULL DEFAULT '',
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE clusters (
  name TEXT PRIMARY KEY,
  kube_api_url TEXT NOT NULL DEFAULT '',
  auth_type TEXT NOT NULL DEFAULT 'token',  -- the credential is the secret cluster/<name>
  verify_ssl INTEGER NOT NULL DEFAULT 1,
  details_json TEXT NOT NULL DEFAULT '{}',
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE cluster_cache (  -- where a cluster's images go
  cluster TEXT PRIMARY KEY REFERENCES clusters (name) ON DELETE CASCADE,
  registry TEXT NOT NULL REFERENCES registries (name),
  repo TEXT NOT NULL DEFAULT 'snap_images'
) STRICT;

CREATE TABLE join_tokens (
  token_id TEXT PRIMARY KEY,
  cluster TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at TEXT NOT NULL,
  expires_at TEXT NOT NULL,
  revoked_at TEXT
) STRICT;
CREATE INDEX join_tokens_of_cluster ON join_tokens (cluster);

CREATE TABLE agents (
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  agent_version TEXT NOT NULL DEFAULT '',
  boot_id TEXT NOT NULL DEFAULT '',
  facts_json TEXT NOT NULL DEFAULT '{}',
  status_json TEXT NOT NULL DEFAULT '{}',
  connected_at TEXT NOT NULL DEFAULT '',
  last_seen TEXT NOT NULL DEFAULT '',
  last_sequence INTEGER NOT NULL DEFAULT 0,  -- of the updates that are stored
  PRIMARY KEY (cluster, node)
) STRICT;

CREATE TABLE agent_identities (
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  public_key BLOB NOT NULL,
  registered_at TEXT NOT NULL,
  PRIMARY KEY (cluster, node)
) STRICT;

CREATE TABLE jobs (
  id TEXT PRIMARY KEY,      -- a ULID: sorts by time
  kind TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
  epoch INTEGER NOT NULL DEFAULT 1,
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  namespace TEXT NOT NULL DEFAULT '',
  owner TEXT NOT NULL,
  initiator TEXT NOT NULL,
  broadcast INTEGER NOT NULL DEFAULT 0,
  task_name TEXT NOT NULL DEFAULT '',
  spec_json TEXT NOT NULL,  -- what StartJob is made of, without any secret
  progress REAL NOT NULL DEFAULT 0,
  message TEXT NOT NULL DEFAULT '',
  bytes_done INTEGER NOT NULL DEFAULT 0,
  bytes_total INTEGER NOT NULL DEFAULT 0,
  result_json TEXT,
  error_json TEXT,
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  agent_lost INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NOT NULL,
  started_at TEXT,
  updated_at TEXT NOT NULL,
  ended_at TEXT
) STRICT;
CREATE INDEX jobs_open ON jobs (cluster, node) WHERE state IN ('queued', 'running');
CREATE INDEX jobs_of_owner ON jobs (owner, id);

CREATE TABLE job_events (   -- changes of state only; progress is not history
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  at TEXT NOT NULL,
  state TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  message TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX job_events_of_job ON job_events (job_id);

CREATE TABLE idempotency (
  username TEXT NOT NULL,
  key TEXT NOT NULL,
  body_sha256 TEXT NOT NULL,
  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  created_at TEXT NOT NULL,
  PRIMARY KEY (username, key, body_sha256)
) STRICT;

CREATE TABLE checkpoints (
  id TEXT PRIMARY KEY,      -- a ULID: sorts by time
  job_id TEXT NOT NULL,
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  namespace TEXT NOT NULL,
  pod_name TEXT NOT NULL,
  pod_uid TEXT NOT NULL DEFAULT '',
  container_name TEXT NOT NULL,
  container_id TEXT NOT NULL DEFAULT '',
  filename TEXT NOT NULL UNIQUE,
  status TEXT NOT NULL CHECK (
    status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'deleted')),
  engine TEXT NOT NULL DEFAULT '',
  size_bytes INTEGER NOT NULL DEFAULT 0,
  pause_ms REAL NOT NULL DEFAULT 0,
  sha256 TEXT,
  revision INTEGER NOT NULL DEFAULT 1,
  image_ref TEXT NOT NULL DEFAULT '',
  left_running INTEGER NOT NULL DEFAULT 1,
  labels_json TEXT NOT NULL DEFAULT '{}',
  template_json TEXT NOT NULL DEFAULT '{}',
  fingerprint_json TEXT NOT NULL DEFAULT '{}',
  criu_options TEXT NOT NULL DEFAULT '',
  warnings_json TEXT NOT NULL DEFAULT '[]',
  error_json TEXT,
  owner TEXT NOT NULL,
  pinned INTEGER NOT NULL DEFAULT 0,
  local INTEGER NOT NULL DEFAULT 0,  -- its parts lie on the node
  expires_at TEXT,
  created_at TEXT NOT NULL,
  completed_at TEXT
) STRICT;
CREATE INDEX checkpoints_of_job ON checkpoints (job_id);
CREATE INDEX checkpoints_of_pod ON checkpoints (cluster, namespace, pod_name, id);

CREATE TABLE images (
  checkpoint_id TEXT NOT NULL REFERENCES checkpoints (id) ON DELETE CASCADE,
  image TEXT NOT NULL,      -- <host>/<repository>:<tag>
  registry TEXT NOT NULL,   -- name of the registry config, empty for one given with the job
  digest TEXT NOT NULL,
  size_bytes INTEGER NOT NULL DEFAULT 0,
  pushed_bytes INTEGER NOT NULL DEFAULT 0,
  duration_ms REAL NOT NULL DEFAULT 0,
  job_id TEXT NOT NULL,
  pushed_at TEXT NOT NULL,
  PRIMARY KEY (checkpoint_id, image)
) STRICT;
CREATE INDEX images_by_digest ON images (digest);

CREATE TABLE grants (
  digest TEXT NOT NULL,
  cluster TEXT NOT NULL,
  namespaces_json TEXT NOT NULL,
  checkpoint_id TEXT NOT NULL DEFAULT '',
  created_by TEXT NOT NULL,
  created_at TEXT NOT NULL,
  expires_at TEXT NOT NULL,
  payload BLOB NOT NULL,
  signature BLOB NOT NULL,
  PRIMARY KEY (digest, cluster)
) STRICT;
CREATE INDEX grants_of_cluster ON grants (cluster);

CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at TEXT NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL DEFAULT '',
  outcome TEXT NOT NULL DEFAULT 'ok',
  address TEXT NOT NULL DEFAULT '',
  details_json TEXT NOT NULL DEFAULT '{}'
) STRICT;
"""

_OPERATIONS: Final = """
CREATE TABLE watchers (
  name TEXT PRIMARY KEY,
  cluster TEXT NOT NULL,
  scope TEXT NOT NULL DEFAULT 'cluster',
  namespace TEXT NOT NULL DEFAULT '',
  trigger_kind TEXT NOT NULL DEFAULT 'startupProbe',
  auto_delete_pod INTEGER NOT NULL DEFAULT 1,
  is_default INTEGER NOT NULL DEFAULT 0,   -- the one that POST /operator/start means
  wanted INTEGER NOT NULL DEFAULT 0,       -- it should run; kept over restarts
  owner TEXT NOT NULL,
  started_at TEXT NOT NULL DEFAULT '',
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX watchers_of_cluster ON watchers (cluster);

CREATE TABLE watcher_decisions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  watcher TEXT NOT NULL REFERENCES watchers (name) ON DELETE CASCADE,
  at TEXT NOT NULL,
  namespace TEXT NOT NULL,
  pod_name TEXT NOT NULL,
  container_name TEXT NOT NULL DEFAULT '',
  decision TEXT NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  job_id TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX watcher_decisions_of ON watcher_decisions (watcher, id);

CREATE TABLE hooks (
  name TEXT PRIMARY KEY,
  cluster TEXT NOT NULL,
  webhook_url TEXT NOT NULL DEFAULT '',    -- empty: the control plane's own address
  namespace TEXT NOT NULL DEFAULT 'snap',
  cert_expiry_days INTEGER NOT NULL DEFAULT 365,
  wanted INTEGER NOT NULL DEFAULT 0,
  owner TEXT NOT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE api_keys (     -- the values are the secret api-key/<name>
  name TEXT PRIMARY KEY,
  keys_json TEXT NOT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE chosen_clusters (  -- of POST /kubectl/login
  username TEXT PRIMARY KEY REFERENCES users (username) ON DELETE CASCADE,
  cluster TEXT NOT NULL,
  chosen_at TEXT NOT NULL
) STRICT;

CREATE TABLE node_reports (  -- of POST /cluster/status/report
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  taken_at TEXT NOT NULL,
  reported_at TEXT NOT NULL,
  checks_json TEXT NOT NULL,
  PRIMARY KEY (cluster, node)
) STRICT;
"""

_UPLOADS: Final = """
ALTER TABLE checkpoints ADD COLUMN place TEXT NOT NULL DEFAULT 'node'
  CHECK (place IN ('node', 'uploaded'));  -- where its archive is: parts on a node, a file here
"""

_INDEXES: Final = """
CREATE INDEX checkpoints_by_status ON checkpoints (status, id);
CREATE INDEX checkpoints_of_namespace ON checkpoints (namespace, id);
CREATE INDEX checkpoints_of_cluster ON checkpoints (cluster, id);
CREATE INDEX checkpoints_named ON checkpoints (pod_name, id);
"""

_RESTORES: Final = """
CREATE TABLE restores (     -- how containers that asked for a restore were started, as their nodes told
  cluster TEXT NOT NULL,
  node TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  digest TEXT NOT NULL,     -- of the image's manifest; empty: the pod named none
  namespace TEXT NOT NULL,
  pod_name TEXT NOT NULL,
  pod_uid TEXT NOT NULL,
  container_name TEXT NOT NULL,
  container_id TEXT NOT NULL,
  image TEXT NOT NULL,
  action TEXT NOT NULL,
  code TEXT NOT NULL,
  reason TEXT NOT NULL,
  details TEXT NOT NULL,
  mode TEXT NOT NULL,
  at TEXT NOT NULL,
  prepare_ms REAL NOT NULL,
  restore_ms REAL NOT NULL,
  start_ms REAL NOT NULL,
  PRIMARY KEY (cluster, node, sequence)
) STRICT;
CREATE INDEX restores_of_digest ON restores (digest, at);
"""

_INSPECTED: Final = """
ALTER TABLE checkpoints ADD COLUMN inspected INTEGER NOT NULL DEFAULT 0;  -- a report of it is kept
"""

_WORKLOADS: Final = """
ALTER TABLE watchers ADD COLUMN delay_s REAL NOT NULL DEFAULT 0;     -- ready or running for so long
ALTER TABLE watchers ADD COLUMN schedule TEXT NOT NULL DEFAULT '';   -- five fields of cron, UTC
ALTER TABLE hooks ADD COLUMN driver TEXT NOT NULL DEFAULT 'runtime'; -- runtime or image

CREATE TABLE workloads (    -- what a checkpoint is one of: the same in every pod of one template
  checkpoint_id TEXT PRIMARY KEY REFERENCES checkpoints (id) ON DELETE CASCADE,
  cluster TEXT NOT NULL,
  namespace TEXT NOT NULL,
  owner_kind TEXT NOT NULL,
  owner_name TEXT NOT NULL,
  container TEXT NOT NULL,
  template_hash TEXT NOT NULL,
  image_digest TEXT NOT NULL,
  moment TEXT NOT NULL DEFAULT '',  -- which moment's state was asked for; empty: any would do
  asks_json TEXT NOT NULL           -- digests of what the container asks for in its pod's spec
) STRICT;
CREATE INDEX workloads_of ON workloads (cluster, namespace, owner_kind, owner_name, container);

CREATE TABLE starts (       -- from a pod's creation until it was ready, as its status said
  cluster TEXT NOT NULL,
  pod_uid TEXT NOT NULL,
  container TEXT NOT NULL,
  namespace TEXT NOT NULL,
  owner_kind TEXT NOT NULL,
  owner_name TEXT NOT NULL,
  template_hash TEXT NOT NULL,
  image_digest TEXT NOT NULL,
  restored INTEGER NOT NULL,
  ms REAL NOT NULL,
  at TEXT NOT NULL,
  PRIMARY KEY (cluster, pod_uid, container)
) STRICT;
CREATE INDEX starts_of ON starts (cluster, namespace, owner_kind, owner_name, container, at);
CREATE INDEX restores_of_pod ON restores (pod_uid, container_name);
"""

# what the statistics count, without a look at any row
_COUNTED: Final = """
CREATE INDEX checkpoints_counted ON checkpoints (status, cluster, namespace);
"""

# how memory comes in pods that do not say; empty: as the node does
_RESTORE_MODES: Final = """
ALTER TABLE checkpoints ADD COLUMN restore_mode TEXT NOT NULL DEFAULT ''
  CHECK (restore_mode IN ('', 'eager', 'lazy', 'auto'));
"""

# how fast a job's bytes move, which says how long they still take
_RATES: Final = """
ALTER TABLE jobs ADD COLUMN bytes_per_s INTEGER NOT NULL DEFAULT 0;
"""

STEPS: Final[tuple[str, ...]] = (
    _FIRST,
    _OPERATIONS,
    _UPLOADS,
    _INDEXES,
    _RESTORES,
    _INSPECTED,
    _WORKLOADS,
    _COUNTED,
    _RESTORE_MODES,
    _RATES,
)
