-- The tables of a task hub, in a schema of their own. Columns stand in the order of the fields of the rows in the port.
-- Times are whole microseconds since the epoch (UTC). Foreign keys are not used: the engine's write sets are exact.
-- Every key leads with the partition, but those of the hub itself and of its hosts. Ids are compared byte by byte, as everywhere else.
--
-- Hosts of the version before may go on beside those of a new one, for as long as a deploy takes, if the migration says so
-- (COMPATIBLE_VERSION): it only adds tables, indexes, and columns that may be NULL, and its functions take what the old
-- ones took.

CREATE TABLE hub (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    hub_id TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    compatible_version INTEGER NOT NULL,
    partition_count INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    incarnation BIGINT NOT NULL
);

-- A place for a host of the fleet. `lsn` is its watermark: every commit moves it, and fails if it or the incarnation is
-- not what the writer believes. A place that is not released is its host's until the lease is over, by the clock of the
-- database. Incarnations are numbered by the hub; a host that owns no partition yet has 0. `functions` are what it can run.
CREATE TABLE node (
    node_id TEXT PRIMARY KEY,
    incarnation BIGINT NOT NULL,
    lsn BIGINT NOT NULL,
    released BOOLEAN NOT NULL,
    owner TEXT NOT NULL,
    owner_token TEXT NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL,
    functions TEXT[] NOT NULL DEFAULT '{}'
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
    partition INTEGER NOT NULL,
    request_id BIGINT NOT NULL,
    method TEXT NOT NULL,
    arguments TEXT NOT NULL,
    caller TEXT NOT NULL,
    taker TEXT,
    status INTEGER,
    answer TEXT,
    PRIMARY KEY (partition, request_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX request_by_id ON request (request_id);
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

-- Attempts of activities that the owner of their partition does not run itself: `taker` is the host that does, none until
-- one has taken it. The activity is in `activity` until an outcome is stored. `function` is its name in lower case. If
-- nobody has taken it by `start_by`, its owner takes it back.
CREATE TABLE offer (
    partition INTEGER NOT NULL,
    execution_id TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    function TEXT COLLATE "C" NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    start_by BIGINT,
    taker TEXT,
    PRIMARY KEY (partition, execution_id, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

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

-- One commit is one call, so that it takes one round trip. `kinds` says what is to be done, in this order, `changes` has
-- the rows of each as a JSON array of objects, and `counts` says how many rows that must find; otherwise all is undone.
-- Whoever calls may have a session of any kind, from a pooler perhaps, so what matters is set here: the tables that are
-- meant, and that the commit is durable. Rows are looked up by their keys, never by going through a table: a plan is
-- kept for long, and is often made while the tables are still empty.
CREATE FUNCTION apply_group(
    path TEXT, writer TEXT, its_incarnation BIGINT, lsn_before BIGINT, lsn_after BIGINT, lease_s FLOAT8,
    touched INTEGER[], epochs BIGINT[], kinds TEXT[], changes JSON[], counts BIGINT[]
) RETURNS VOID LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    began CONSTANT TIMESTAMPTZ := clock_timestamp();
    found BIGINT;
    given JSON;
BEGIN
    IF current_setting('search_path') <> path THEN
        PERFORM set_config('search_path', path, true);
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    -- The fence: one row changes, or the writer is not the owner, or the group does not follow. Partitions move in a
    -- transaction of their owner, or after its place was freed: since only the row of the place is looked at anew after
    -- waiting for it. What only arrives may be in partitions of others.
    UPDATE node SET lsn = lsn_after, lease_until = clock_timestamp() + lease_s * interval '1 second'
    WHERE node_id = writer AND incarnation = its_incarnation AND lsn = lsn_before AND NOT released
      AND cardinality(touched) = (
        SELECT count(*) FROM partition JOIN unnest(touched, epochs) AS fence (partition, epoch)
          USING (partition, epoch) WHERE partition.node_id = writer);
    GET DIAGNOSTICS found = ROW_COUNT;
    IF found <> 1 THEN
        RAISE EXCEPTION 'the fence of % does not hold, or lsn % is not the last', writer, lsn_before
            USING ERRCODE = 'HF001';
    END IF;

    FOR number IN 1 .. cardinality(kinds) LOOP
        given := changes[number];
        CASE kinds[number]
        WHEN 'remove_history' THEN  -- all episodes of executions; it counts those that had as many as is said
            WITH removed AS (
                DELETE FROM history
                USING json_to_recordset(given) AS gone (partition INTEGER, execution_id TEXT, episodes BIGINT)
                WHERE history.partition = gone.partition AND history.execution_id = gone.execution_id
                RETURNING gone.partition, gone.execution_id, gone.episodes
            ), exact AS (
                SELECT FROM removed GROUP BY partition, execution_id, episodes HAVING count(*) = episodes
            )
            SELECT count(*) FROM exact INTO found;
        WHEN 'remove_messages' THEN
            DELETE FROM inbox USING json_to_recordset(given) AS gone (partition INTEGER, message_id BIGINT)
            WHERE inbox.partition = gone.partition AND inbox.message_id = gone.message_id;
        WHEN 'remove_arrivals' THEN
            DELETE FROM arrival USING json_to_recordset(given) AS gone (partition INTEGER, arrival_id BIGINT)
            WHERE arrival.partition = gone.partition AND arrival.arrival_id = gone.arrival_id;
        WHEN 'remove_activities' THEN
            DELETE FROM activity
            USING json_to_recordset(given) AS gone (partition INTEGER, execution_id TEXT, sequence BIGINT)
            WHERE activity.partition = gone.partition AND activity.execution_id = gone.execution_id
              AND activity.sequence = gone.sequence;
        WHEN 'remove_timers' THEN
            DELETE FROM timer
            USING json_to_recordset(given) AS gone (partition INTEGER, execution_id TEXT, sequence BIGINT)
            WHERE timer.partition = gone.partition AND timer.execution_id = gone.execution_id
              AND timer.sequence = gone.sequence;
        WHEN 'remove_children' THEN
            DELETE FROM child
            USING json_to_recordset(given) AS gone (partition INTEGER, execution_id TEXT, sequence BIGINT)
            WHERE child.partition = gone.partition AND child.execution_id = gone.execution_id
              AND child.sequence = gone.sequence;
        WHEN 'remove_operation_keys' THEN
            DELETE FROM operation_key
            USING json_to_recordset(given) AS gone (partition INTEGER, instance_id TEXT, operation_key TEXT)
            WHERE operation_key.partition = gone.partition AND operation_key.instance_id = gone.instance_id
              AND operation_key.operation_key = gone.operation_key;
        WHEN 'remove_instances' THEN
            DELETE FROM instance
            USING json_to_recordset(given) AS gone (partition INTEGER, instance_id TEXT, revision BIGINT)
            WHERE instance.partition = gone.partition AND instance.instance_id = gone.instance_id
              AND instance.revision = gone.revision;
        WHEN 'restart_instances' THEN  -- what is fixed within an execution; their images follow
            UPDATE instance SET execution_id = new.execution_id, name = new.name, created_at = new.created_at,
                input = new.input, parent = new.parent, version = new.version, tags = new.tags,
                request_key = new.request_key
            FROM json_to_recordset(given) AS new (partition INTEGER, instance_id TEXT, revision_before BIGINT,
                execution_id TEXT, name TEXT, created_at BIGINT, input TEXT, parent TEXT, version TEXT, tags TEXT,
                request_key TEXT)
            WHERE instance.partition = new.partition AND instance.instance_id = new.instance_id
              AND instance.revision = new.revision_before;
        WHEN 'update_instances' THEN
            UPDATE instance SET revision = new.revision, status = new.status, updated_at = new.updated_at,
                output = new.output, custom_status = new.custom_status, failure = new.failure, parked = new.parked,
                state = new.state, lock = new.lock, episodes = new.episodes, history_events = new.history_events,
                deliveries = new.deliveries, events_buffered = new.events_buffered, events_awaited = new.events_awaited
            FROM json_to_recordset(given) AS new (partition INTEGER, instance_id TEXT, revision_before BIGINT,
                revision BIGINT, status TEXT, updated_at BIGINT, output TEXT, custom_status TEXT, failure TEXT,
                parked TEXT, state TEXT, lock TEXT, episodes BIGINT, history_events BIGINT, deliveries BIGINT,
                events_buffered BIGINT, events_awaited TEXT)
            WHERE instance.partition = new.partition AND instance.instance_id = new.instance_id
              AND instance.revision = new.revision_before;
        WHEN 'update_activities' THEN
            UPDATE activity SET attempt = new.attempt, deliveries = new.deliveries, visible_at = new.visible_at,
                progress = new.progress
            FROM json_to_recordset(given) AS new (partition INTEGER, execution_id TEXT, sequence BIGINT,
                attempt BIGINT, deliveries BIGINT, visible_at BIGINT, progress TEXT)
            WHERE activity.partition = new.partition AND activity.execution_id = new.execution_id
              AND activity.sequence = new.sequence;
        WHEN 'insert_instances' THEN
            INSERT INTO instance SELECT * FROM json_to_recordset(given) AS new (partition INTEGER, instance_id TEXT,
                execution_id TEXT, revision BIGINT, name TEXT, status TEXT, created_at BIGINT, updated_at BIGINT,
                input TEXT, output TEXT, custom_status TEXT, failure TEXT, parked TEXT, parent TEXT, state TEXT,
                lock TEXT, episodes BIGINT, history_events BIGINT, deliveries BIGINT, version TEXT, tags TEXT,
                request_key TEXT, events_buffered BIGINT, events_awaited TEXT);
        WHEN 'insert_history' THEN
            INSERT INTO history SELECT * FROM json_populate_recordset(NULL::history, given);
        WHEN 'insert_messages' THEN
            INSERT INTO inbox SELECT * FROM json_populate_recordset(NULL::inbox, given);
        WHEN 'insert_arrivals' THEN  -- for other nodes, perhaps; the table numbers them
            INSERT INTO arrival (partition, instance_id, execution_id, event)
            SELECT partition, instance_id, execution_id, event FROM json_populate_recordset(NULL::arrival, given);
        WHEN 'insert_activities' THEN
            INSERT INTO activity SELECT * FROM json_populate_recordset(NULL::activity, given);
        WHEN 'insert_timers' THEN
            INSERT INTO timer SELECT * FROM json_populate_recordset(NULL::timer, given);
        WHEN 'insert_children' THEN
            INSERT INTO child SELECT * FROM json_populate_recordset(NULL::child, given);
        WHEN 'insert_operation_keys' THEN
            INSERT INTO operation_key SELECT * FROM json_populate_recordset(NULL::operation_key, given);
        END CASE;
        IF kinds[number] <> 'remove_history' THEN
            GET DIAGNOSTICS found = ROW_COUNT;
        END IF;
        IF found <> counts[number] THEN
            RAISE EXCEPTION '% finds % rows instead of %', kinds[number], found, counts[number]
                USING ERRCODE = 'HF002', CONSTRAINT = kinds[number], DETAIL = found;
        END IF;
    END LOOP;

    -- The lease would be over soon after so long a commit.
    IF clock_timestamp() > began + lease_s / 3 * interval '1 second' THEN
        UPDATE node SET lease_until = clock_timestamp() + lease_s * interval '1 second'
        WHERE node_id = writer AND incarnation = its_incarnation;
    END IF;
END
$$;

-- For programs in other languages: messages that are sent in the transaction of the caller, by inserting them above.
-- They refuse what cannot be meant; what they cannot tell, a host refuses when it takes the message in.

-- zlib.crc32 of a text as UTF-8, half a byte at a time. PostgreSQL has one of its own only from 18 on.
CREATE FUNCTION crc32_of(id TEXT) RETURNS BIGINT LANGUAGE plpgsql STABLE AS $$
DECLARE
    changes CONSTANT BIGINT[] := ARRAY[
        0, 498536548, 997073096, 651767980, 1994146192, 1802195444, 1303535960, 1342533948,
        3988292384, 4027552580, 3604390888, 3412177804, 2607071920, 2262029012, 2685067896, 3183342108];
    bytes CONSTANT BYTEA := convert_to(id, 'UTF8');
    crc BIGINT := 4294967295;
BEGIN
    FOR position IN 0 .. length(bytes) - 1 LOOP
        crc := crc # get_byte(bytes, position);
        crc := (crc >> 4) # changes[(crc & 15)::int + 1];
        crc := (crc >> 4) # changes[(crc & 15)::int + 1];
    END LOOP;
    RETURN crc # 4294967295;
END
$$;

CREATE FUNCTION checked_text(what TEXT, value TEXT, forbidden TEXT DEFAULT '') RETURNS TEXT LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF value IS NULL OR length(value) NOT BETWEEN 1 AND 256 OR value ~ ('[[:cntrl:]' || forbidden || ']') THEN
        RAISE EXCEPTION '% is %; it must have 1 to 256 printable characters, and none of %', what,
            coalesce(quote_literal(left(value, 60)), 'NULL'), coalesce(nullif(forbidden, ''), 'those that control')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN value;
END
$$;

CREATE FUNCTION checked_payload(payload JSONB) RETURNS TEXT LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF octet_length(payload::text) > 4194304 THEN
        RAISE EXCEPTION 'the payload takes % bytes as JSON; the limit is 4194304', octet_length(payload::text)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN payload::text;
END
$$;

CREATE FUNCTION checked_tags(tags JSONB) RETURNS JSONB LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(tags) <> 'object' OR (
        SELECT count(*) > 64 OR coalesce(bool_or(
            jsonb_typeof(tag.value) <> 'string' OR length(tag.value #>> '{}') > 1000
            OR length(tag.key) NOT BETWEEN 1 AND 1000), false)
        FROM jsonb_each(CASE jsonb_typeof(tags) WHEN 'object' THEN tags ELSE '{}' END) AS tag
    ) THEN
        RAISE EXCEPTION 'the tags must be a JSON object of at most 64 texts, of up to 1000 characters each'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN tags;
END
$$;

CREATE FUNCTION instant(at TIMESTAMPTZ) RETURNS TEXT LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF at NOT BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-31 00:00:00+00' THEN
        RAISE EXCEPTION '% is beyond the calendar', at USING ERRCODE = 'datetime_field_overflow';
    END IF;
    RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
END
$$;

-- The search path is that of this script: the schema of the hub alone, whoever calls.
CREATE FUNCTION send_message(receiver TEXT, message JSONB, notify BOOLEAN) RETURNS VOID LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
    sent_to INTEGER;
BEGIN
    INSERT INTO arrival (partition, instance_id, event)
    SELECT crc32_of(receiver) % partition_count, receiver,
        jsonb_build_object('v', 1, 'event', jsonb_strip_nulls(message))::text
    FROM hub
    RETURNING arrival.partition INTO STRICT sent_to;
    IF notify THEN
        PERFORM pg_notify(
            concat('holdfast_', lpad(to_hex(crc32_of(current_schema())), 8, '0')), concat('arrivals ', sent_to));
    END IF;
END
$$;

-- Returns the instance id. A start of an id that is in use, or was unless it says `replace_ended`, has no effect.
CREATE FUNCTION start_orchestration(
    name TEXT, input JSONB DEFAULT NULL, instance_id TEXT DEFAULT NULL, version TEXT DEFAULT NULL,
    tags JSONB DEFAULT NULL, start_at TIMESTAMPTZ DEFAULT NULL, run_timeout INTERVAL DEFAULT NULL,
    replace_ended BOOLEAN DEFAULT false, notify BOOLEAN DEFAULT true
) RETURNS TEXT LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    now CONSTANT TIMESTAMPTZ := clock_timestamp();
    made CONSTANT TEXT := replace(gen_random_uuid()::text, '-', '');
    started CONSTANT TEXT := checked_text(
        'the instance id', coalesce(instance_id, replace(gen_random_uuid()::text, '-', '')), '/\\#?');
BEGIN
    IF started LIKE '@%' THEN
        RAISE EXCEPTION 'the instance id % starts with "@", which is kept for entities', started
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF run_timeout <= INTERVAL '0' THEN
        RAISE EXCEPTION 'run_timeout must be more than zero' USING ERRCODE = 'invalid_parameter_value';
    ELSIF length(version) > 100 THEN
        RAISE EXCEPTION 'the version has more than 100 characters' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM send_message(started, jsonb_build_object(
        'type', 'ExecutionStarted',
        'timestamp', instant(now),
        'name', checked_text('the name of the orchestrator', name),
        'instance_id', started,
        'execution_id', concat('t', lpad(to_hex((extract(epoch FROM now) * 1000000)::bigint), 13, '0'), '-', made),
        'input', checked_payload(input),
        'version', CASE WHEN version IS NOT NULL THEN checked_text('the version', version) END,
        'tags', checked_tags(tags),
        'start_at', instant(start_at),
        'expires_at', instant(least(greatest(now, start_at) + run_timeout, '9999-12-31 00:00:00+00')),
        'id_rule', CASE WHEN replace_ended THEN 'replace' ELSE 'once' END
    ), notify);
    RETURN started;
END
$$;

-- Of several events with one key the orchestration sees the first.
CREATE FUNCTION raise_event(
    instance_id TEXT, name TEXT, data JSONB DEFAULT NULL, key TEXT DEFAULT NULL, notify BOOLEAN DEFAULT true
) RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF instance_id LIKE '@%' THEN
        RAISE EXCEPTION '% is an entity; it can be signalled', instance_id USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM send_message(checked_text('the instance id', instance_id, '/\\#?'), jsonb_build_object(
        'type', 'EventRaised',
        'timestamp', instant(clock_timestamp()),
        'name', checked_text('the name of the event', name),
        'input', coalesce(checked_payload(data), 'null'),
        'key', CASE WHEN key IS NOT NULL THEN checked_text('the key', key) END
    ), notify);
END
$$;

-- Of several signals with one key the entity runs the first.
CREATE FUNCTION signal_entity(
    entity_name TEXT, entity_key TEXT, operation TEXT, input JSONB DEFAULT NULL, key TEXT DEFAULT NULL,
    due TIMESTAMPTZ DEFAULT NULL, notify BOOLEAN DEFAULT true
) RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    receiver CONSTANT TEXT := checked_text('the entity id', concat(
        '@', lower(checked_text('the entity name', entity_name, '@/\\#?')),
        '@', checked_text('the entity key', entity_key, '/\\#?')), '/\\#?');
BEGIN
    IF operation LIKE '\_%' THEN
        RAISE EXCEPTION '% is no operation of an entity', operation USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM send_message(receiver, jsonb_build_object(
        'type', 'EntityOperationSignaled',
        'timestamp', instant(clock_timestamp()),
        'request_id', coalesce(key, replace(gen_random_uuid()::text, '-', '')),
        'target_instance_id', receiver,
        'operation', checked_text('the operation', operation),
        'input', checked_payload(input),
        'due_at', instant(due),
        'key', CASE WHEN key IS NOT NULL THEN checked_text('the key', key) END
    ), notify);
END
$$;

-- Records, in the transaction of an activity, that this attempt of it has succeeded. Nothing is returned if it concerns
-- nobody; the report of an attempt that was committed before comes back as no new one. Statements of such a function see
-- what was committed before each of them, so that of two attempts the second one finds the report of the first.
-- From here to the commit the row of the activity is locked, which must not be for long.
CREATE FUNCTION complete_activity(
    crc BIGINT, of_instance TEXT, of_execution TEXT, its_sequence BIGINT, its_attempt BIGINT, report TEXT
) RETURNS TABLE (is_new BOOLEAN, in_partition INTEGER, instance TEXT, execution TEXT, event TEXT, id BIGINT)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    its_partition CONSTANT INTEGER := crc % (SELECT partition_count FROM hub);
BEGIN
    PERFORM pg_catalog.set_config('idle_in_transaction_session_timeout', '5000', true);
    PERFORM FROM activity
    WHERE partition = its_partition AND execution_id = of_execution AND sequence = its_sequence
        AND attempt = its_attempt
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT false, arrival.partition, arrival.instance_id, arrival.execution_id, arrival.event, arrival_id
    FROM arrival
    WHERE partition = its_partition AND instance_id = of_instance AND execution_id = of_execution
        AND starts_with(arrival.event, format('{"type":"ActivityReported","sequence":%s,"attempt":0,', its_sequence))
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN QUERY INSERT INTO arrival (partition, instance_id, execution_id, event)
        VALUES (its_partition, of_instance, of_execution, report)
        RETURNING true, arrival.partition, arrival.instance_id, arrival.execution_id, arrival.event, arrival_id;
    END IF;
END
$$;
