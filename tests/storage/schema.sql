CREATE TABLE activity (
    partition INTEGER NOT NULL CHECK (partition = 0),
    execution_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    instance_id TEXT NOT NULL,
    name TEXT NOT NULL,
    input TEXT,
    options TEXT,
    attempt INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    scheduled_at INTEGER NOT NULL,
    visible_at INTEGER NOT NULL,
    progress TEXT
) STRICT;
CREATE UNIQUE INDEX activity_by_execution ON activity (partition, execution_id, sequence);
CREATE INDEX activity_by_time ON activity (visible_at, execution_id, sequence);
CREATE TABLE arrival (
    partition INTEGER NOT NULL,
    instance_id TEXT NOT NULL,
    execution_id TEXT,
    event TEXT NOT NULL,
    arrival_id INTEGER PRIMARY KEY AUTOINCREMENT
) STRICT;
CREATE TABLE child (
    partition INTEGER NOT NULL CHECK (partition = 0),
    execution_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    instance_id TEXT NOT NULL,
    child_instance_id TEXT NOT NULL,
    PRIMARY KEY (partition, execution_id, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    partition INTEGER NOT NULL CHECK (partition = 0),
    execution_id TEXT NOT NULL,
    episode INTEGER NOT NULL,
    events TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX history_by_execution ON history (partition, execution_id, episode);
CREATE TABLE hub (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    hub_id TEXT NOT NULL,
    partition_count INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE inbox (
    partition INTEGER NOT NULL CHECK (partition = 0),
    message_id INTEGER PRIMARY KEY,
    instance_id TEXT NOT NULL,
    execution_id TEXT,
    event TEXT NOT NULL
) STRICT;
CREATE INDEX inbox_by_instance ON inbox (instance_id);
CREATE TABLE instance (
    partition INTEGER NOT NULL CHECK (partition = 0),
    instance_id TEXT NOT NULL,
    execution_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    input TEXT,
    output TEXT,
    custom_status TEXT,
    failure TEXT,
    parked TEXT,
    parent TEXT,
    state TEXT,
    lock TEXT,
    episodes INTEGER NOT NULL,
    history_events INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    version TEXT,
    tags TEXT,
    request_key TEXT,
    events_buffered INTEGER NOT NULL,
    events_awaited TEXT
) STRICT;
CREATE INDEX instance_by_end ON instance (updated_at, instance_id)
WHERE status = 'Completed' OR status = 'Failed' OR status = 'Terminated' OR status = 'Canceled';
CREATE UNIQUE INDEX instance_by_id ON instance (partition, instance_id);
CREATE TABLE node (
    node_id TEXT PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    lsn INTEGER NOT NULL,
    released INTEGER NOT NULL,
    owner TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE operation_key (
    partition INTEGER NOT NULL CHECK (partition = 0),
    instance_id TEXT NOT NULL,
    operation_key TEXT NOT NULL,
    position INTEGER NOT NULL,
    answer TEXT,
    PRIMARY KEY (partition, instance_id, operation_key)
) STRICT, WITHOUT ROWID;
CREATE TABLE partition (
    partition INTEGER PRIMARY KEY,
    node_id TEXT NOT NULL,
    epoch INTEGER NOT NULL
) STRICT;
CREATE TABLE sqlite_sequence(name,seq);
CREATE TABLE timer (
    partition INTEGER NOT NULL CHECK (partition = 0),
    execution_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    instance_id TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    event TEXT,
    PRIMARY KEY (partition, execution_id, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX timer_by_time ON timer (due_at, execution_id, sequence);
