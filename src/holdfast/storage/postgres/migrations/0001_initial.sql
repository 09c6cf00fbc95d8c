-- The tables of a task hub, in a schema of their own. Columns stand in the order of the fields of the rows in the port.
-- Times are whole microseconds since the epoch (UTC). Foreign keys are not used: the engine's write sets are exact.
-- Every key leads with the partition. Ids are compared byte by byte, as everywhere else.

CREATE TABLE hub (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    hub_id TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    partition_count INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    incarnation BIGINT NOT NULL
);

-- A place for a host of the fleet. `lsn` is its watermark: every commit moves it, and fails if it or the incarnation is
-- not what the writer believes. A place that is not released is its host's until the lease is over, by the clock of the
-- database. Incarnations are numbered by the hub; a host that owns no partition yet has 0.
CREATE TABLE node (
    node_id TEXT PRIMARY KEY,
    incarnation BIGINT NOT NULL,
    lsn BIGINT NOT NULL,
    released BOOLEAN NOT NULL,
    owner TEXT NOT NULL,
    owner_token TEXT NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- `node_id` is '' for one that nobody owns.
CREATE TABLE partition (
    partition INTEGER PRIMARY KEY,
    node_id TEXT NOT NULL,
    epoch BIGINT NOT NULL
);

-- Instances are updated in place all their life: no index may hold a column that changes then, so that the updates are
-- HOT and leave the indexes alone. `ended_at` changes once, at the end.
CREATE TABLE instance (
    partition INTEGER NOT NULL,
    instance_id TEXT COLLATE "C" NOT NULL,
    execution_id TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    input TEXT,
    output TEXT,
    custom_status TEXT COLLATE "C",
    failure TEXT,
    parked TEXT,
    parent TEXT,
    state TEXT,
    lock TEXT,
    episodes BIGINT NOT NULL,
    history_events BIGINT NOT NULL,
    deliveries BIGINT NOT NULL,
    version TEXT,
    tags TEXT,
    request_key TEXT,
    events_buffered BIGINT NOT NULL,
    events_awaited TEXT,
    ended_at BIGINT GENERATED ALWAYS AS (
        CASE WHEN status IN ('Completed', 'Failed', 'Terminated', 'Canceled') THEN updated_at END
    ) STORED,
    PRIMARY KEY (partition, instance_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX instance_by_id ON instance (instance_id);
CREATE INDEX instance_by_end ON instance (ended_at, instance_id) WHERE ended_at IS NOT NULL;

CREATE TABLE history (
    partition INTEGER NOT NULL,
    execution_id TEXT COLLATE "C" NOT NULL,
    episode BIGINT NOT NULL,
    events TEXT NOT NULL,
    PRIMARY KEY (partition, execution_id, episode)
);

CREATE TABLE inbox (
    partition INTEGER NOT NULL,
    message_id BIGINT NOT NULL,
    instance_id TEXT COLLATE "C" NOT NULL,
    execution_id TEXT COLLATE "C",
    event TEXT NOT NULL,
    PRIMARY KEY (partition, message_id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE INDEX inbox_by_instance ON inbox (instance_id);

-- What other nodes, and transactions that are no host's, have sent, and the owner of the partition has not taken in yet.
CREATE TABLE arrival (
    partition INTEGER NOT NULL,
    instance_id TEXT COLLATE "C" NOT NULL,
    execution_id TEXT COLLATE "C",
    event TEXT NOT NULL,
    arrival_id BIGINT GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (partition, arrival_id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

CREATE INDEX arrival_by_id ON arrival (arrival_id);

-- What clients ask at one host of an instance that another one has, while they wait. It need not outlive the server.
CREATE UNLOGGED TABLE request (
    request_id BIGINT PRIMARY KEY,
    partition INTEGER NOT NULL,
    method TEXT NOT NULL,
    arguments TEXT NOT NULL,
    caller TEXT NOT NULL,
    taker TEXT,
    status INTEGER,
    answer TEXT
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX request_to_take ON request (request_id) WHERE taker IS NULL;
CREATE INDEX request_answered ON request (caller) WHERE status IS NOT NULL;

-- A row of one of the next three tables always belongs to the current execution of its instance.
CREATE TABLE activity (
    partition INTEGER NOT NULL,
    execution_id TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    instance_id TEXT COLLATE "C" NOT NULL,
    name TEXT NOT NULL,
    input TEXT,
    options TEXT,
    attempt BIGINT NOT NULL,
    deliveries BIGINT NOT NULL,
    scheduled_at BIGINT NOT NULL,
    visible_at BIGINT NOT NULL,
    progress TEXT,
    PRIMARY KEY (partition, execution_id, sequence)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE INDEX activity_by_time ON activity (visible_at, execution_id, sequence);

CREATE TABLE timer (
    partition INTEGER NOT NULL,
    execution_id TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    instance_id TEXT COLLATE "C" NOT NULL,
    due_at BIGINT NOT NULL,
    event TEXT,
    PRIMARY KEY (partition, execution_id, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE INDEX timer_by_time ON timer (due_at, execution_id, sequence);

CREATE TABLE child (
    partition INTEGER NOT NULL,
    execution_id TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    instance_id TEXT COLLATE "C" NOT NULL,
    child_instance_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (partition, execution_id, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

CREATE TABLE operation_key (
    partition INTEGER NOT NULL,
    instance_id TEXT COLLATE "C" NOT NULL,
    operation_key TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    answer TEXT,
    PRIMARY KEY (partition, instance_id, operation_key)
);

-- What is asked of records by their contents must not fail at one that cannot be read. Up to PostgreSQL 16 a handler of
-- errors cannot run in a parallel query.
CREATE FUNCTION is_json(record TEXT) RETURNS BOOLEAN LANGUAGE plpgsql IMMUTABLE PARALLEL UNSAFE AS $$
BEGIN
    RETURN record IS NULL OR record::json IS NOT NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN false;
END
$$;

CREATE FUNCTION json_or_null(record TEXT) RETURNS JSONB LANGUAGE plpgsql IMMUTABLE PARALLEL UNSAFE AS $$
BEGIN
    RETURN record::jsonb;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;
