-- What a commit does, as one statement for the one who makes it: a row that is put into the view `commit_group`. It is
-- never there, but the trigger does what it says. So SQLite goes through all of it without a break, and the thread that
-- commits asks for the interpreter, which the event loop needs meanwhile, hardly ever.
--
-- Rows come as one JSON array for each kind, with an array for each row; NULL stands for none. Each statement asks first
-- whether there are any: to prepare for rows takes longer than to see that there are none. If something is not there as
-- the group says, the name of the kind is the error. View and trigger belong to a connection, and are not in the file.

CREATE TEMP VIEW commit_group (
    node_id, incarnation, epoch, lsn_before, lsn,
    executions_removed, messages_removed, arrivals_removed, activities_removed,
    timers_removed, children_removed, operation_keys_removed, instances_removed,
    instances_updated, instances_restarted, activities_updated, instances_inserted,
    history_inserted, messages_inserted, arrivals_inserted, activities_inserted,
    timers_inserted, children_inserted, operation_keys_inserted
) AS SELECT
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;

CREATE TEMP TRIGGER apply_group INSTEAD OF INSERT ON commit_group BEGIN
    -- The fence: one row changes, or the writer is not the owner, or the group does not follow.
    UPDATE node SET lsn = NEW.lsn
    WHERE node_id = NEW.node_id AND incarnation = NEW.incarnation AND lsn = NEW.lsn_before AND released = 0
      AND EXISTS (
        SELECT 1 FROM partition WHERE partition = 0 AND partition.node_id = NEW.node_id AND epoch = NEW.epoch
      );
    SELECT RAISE(ABORT, 'fence') WHERE changes() <> 1;

    -- All episodes of executions; each comes with how many there are.
    SELECT RAISE(ABORT, 'executions_removed') FROM json_each(NEW.executions_removed)
    WHERE json_extract(value, '$[2]') <> (
        SELECT count(*) FROM history
        WHERE partition = json_extract(value, '$[0]') AND execution_id = json_extract(value, '$[1]')
    );
    DELETE FROM history
    WHERE NEW.executions_removed IS NOT NULL AND partition = 0 AND execution_id IN (
        SELECT json_extract(value, '$[1]') FROM json_each(NEW.executions_removed)
    );

    -- A message that was consumed.
    DELETE FROM inbox
    WHERE NEW.messages_removed IS NOT NULL AND partition = 0 AND message_id IN (
        SELECT json_extract(value, '$[1]') FROM json_each(NEW.messages_removed) WHERE json_extract(value, '$[0]') = 0
    );
    SELECT RAISE(ABORT, 'messages_removed') WHERE changes() <> json_array_length(NEW.messages_removed);

    -- What was taken in.
    DELETE FROM arrival
    WHERE NEW.arrivals_removed IS NOT NULL AND partition = 0 AND arrival_id IN (
        SELECT json_extract(value, '$[1]') FROM json_each(NEW.arrivals_removed) WHERE json_extract(value, '$[0]') = 0
    );
    SELECT RAISE(ABORT, 'arrivals_removed') WHERE changes() <> json_array_length(NEW.arrivals_removed);

    -- An activity whose completion was consumed, or which was abandoned.
    DELETE FROM activity
    WHERE NEW.activities_removed IS NOT NULL AND partition = 0 AND (execution_id, sequence) IN (
        SELECT CAST(json_extract(value, '$[1]') AS TEXT), CAST(json_extract(value, '$[2]') AS INTEGER)
        FROM json_each(NEW.activities_removed) WHERE json_extract(value, '$[0]') = 0
    );
    SELECT RAISE(ABORT, 'activities_removed') WHERE changes() <> json_array_length(NEW.activities_removed);

    -- A timer that fired or was cancelled.
    DELETE FROM timer
    WHERE NEW.timers_removed IS NOT NULL AND partition = 0 AND (execution_id, sequence) IN (
        SELECT CAST(json_extract(value, '$[1]') AS TEXT), CAST(json_extract(value, '$[2]') AS INTEGER)
        FROM json_each(NEW.timers_removed) WHERE json_extract(value, '$[0]') = 0
    );
    SELECT RAISE(ABORT, 'timers_removed') WHERE changes() <> json_array_length(NEW.timers_removed);

    -- A sub-orchestration whose end was consumed, or which was given up.
    DELETE FROM child
    WHERE NEW.children_removed IS NOT NULL AND partition = 0 AND (execution_id, sequence) IN (
        SELECT CAST(json_extract(value, '$[1]') AS TEXT), CAST(json_extract(value, '$[2]') AS INTEGER)
        FROM json_each(NEW.children_removed) WHERE json_extract(value, '$[0]') = 0
    );
    SELECT RAISE(ABORT, 'children_removed') WHERE changes() <> json_array_length(NEW.children_removed);

    -- An idempotency key that an entity remembers no longer.
    DELETE FROM operation_key
    WHERE NEW.operation_keys_removed IS NOT NULL AND partition = 0 AND (instance_id, operation_key) IN (
        SELECT CAST(json_extract(value, '$[1]') AS TEXT), CAST(json_extract(value, '$[2]') AS TEXT)
        FROM json_each(NEW.operation_keys_removed) WHERE json_extract(value, '$[0]') = 0
    );
    SELECT RAISE(ABORT, 'operation_keys_removed') WHERE changes() <> json_array_length(NEW.operation_keys_removed);

    -- What was purged, or an entity that holds nothing any more; the last of each is the revision that must be stored.
    DELETE FROM instance
    WHERE NEW.instances_removed IS NOT NULL AND partition = 0 AND (instance_id, revision) IN (
        SELECT CAST(json_extract(value, '$[1]') AS TEXT), CAST(json_extract(value, '$[2]') AS INTEGER)
        FROM json_each(NEW.instances_removed) WHERE json_extract(value, '$[0]') = 0
    );
    SELECT RAISE(ABORT, 'instances_removed') WHERE changes() <> json_array_length(NEW.instances_removed);

    -- New images within an execution; the last of each is the revision that must be stored.
    UPDATE instance SET
        revision = json_extract(value, '$[0]'), status = json_extract(value, '$[1]'),
        updated_at = json_extract(value, '$[2]'), output = json_extract(value, '$[3]'),
        custom_status = json_extract(value, '$[4]'), failure = json_extract(value, '$[5]'),
        parked = json_extract(value, '$[6]'), state = json_extract(value, '$[7]'), lock = json_extract(value, '$[8]'),
        episodes = json_extract(value, '$[9]'), history_events = json_extract(value, '$[10]'),
        deliveries = json_extract(value, '$[11]'), events_buffered = json_extract(value, '$[12]'),
        events_awaited = json_extract(value, '$[13]')
    FROM json_each(NEW.instances_updated)
    WHERE NEW.instances_updated IS NOT NULL AND instance.partition = json_extract(value, '$[14]')
        AND instance.instance_id = json_extract(value, '$[15]') AND instance.revision = json_extract(value, '$[16]');
    SELECT RAISE(ABORT, 'instances_updated') WHERE changes() <> json_array_length(NEW.instances_updated);

    -- New images with another execution: what is fixed within one, then as above.
    UPDATE instance SET
        execution_id = json_extract(value, '$[0]'), name = json_extract(value, '$[1]'),
        created_at = json_extract(value, '$[2]'), input = json_extract(value, '$[3]'),
        parent = json_extract(value, '$[4]'), version = json_extract(value, '$[5]'), tags = json_extract(value, '$[6]'),
        request_key = json_extract(value, '$[7]'), revision = json_extract(value, '$[8]'),
        status = json_extract(value, '$[9]'), updated_at = json_extract(value, '$[10]'),
        output = json_extract(value, '$[11]'), custom_status = json_extract(value, '$[12]'),
        failure = json_extract(value, '$[13]'), parked = json_extract(value, '$[14]'),
        state = json_extract(value, '$[15]'), lock = json_extract(value, '$[16]'),
        episodes = json_extract(value, '$[17]'), history_events = json_extract(value, '$[18]'),
        deliveries = json_extract(value, '$[19]'), events_buffered = json_extract(value, '$[20]'),
        events_awaited = json_extract(value, '$[21]')
    FROM json_each(NEW.instances_restarted)
    WHERE NEW.instances_restarted IS NOT NULL AND instance.partition = json_extract(value, '$[22]')
        AND instance.instance_id = json_extract(value, '$[23]') AND instance.revision = json_extract(value, '$[24]');
    SELECT RAISE(ABORT, 'instances_restarted') WHERE changes() <> json_array_length(NEW.instances_restarted);

    -- What changes when an activity is tried again.
    UPDATE activity SET
        attempt = json_extract(value, '$[0]'), deliveries = json_extract(value, '$[1]'),
        visible_at = json_extract(value, '$[2]'), progress = json_extract(value, '$[3]')
    FROM json_each(NEW.activities_updated)
    WHERE NEW.activities_updated IS NOT NULL AND activity.partition = json_extract(value, '$[4]')
        AND activity.execution_id = json_extract(value, '$[5]') AND activity.sequence = json_extract(value, '$[6]');
    SELECT RAISE(ABORT, 'activities_updated') WHERE changes() <> json_array_length(NEW.activities_updated);

    -- A new orchestration or entity.
    INSERT INTO instance SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
        json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]'),
        json_extract(value, '$[9]'), json_extract(value, '$[10]'), json_extract(value, '$[11]'),
        json_extract(value, '$[12]'), json_extract(value, '$[13]'), json_extract(value, '$[14]'),
        json_extract(value, '$[15]'), json_extract(value, '$[16]'), json_extract(value, '$[17]'),
        json_extract(value, '$[18]'), json_extract(value, '$[19]'), json_extract(value, '$[20]'),
        json_extract(value, '$[21]'), json_extract(value, '$[22]'), json_extract(value, '$[23]')
    FROM json_each(NEW.instances_inserted) WHERE NEW.instances_inserted IS NOT NULL;

    -- The history of one episode.
    INSERT INTO history SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]')
    FROM json_each(NEW.history_inserted) WHERE NEW.history_inserted IS NOT NULL;

    -- A message that waits.
    INSERT INTO inbox SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]')
    FROM json_each(NEW.messages_inserted) WHERE NEW.messages_inserted IS NOT NULL;

    -- A message for somebody whom the writer may not know.
    INSERT INTO arrival (partition, instance_id, execution_id, event) SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]')
    FROM json_each(NEW.arrivals_inserted) WHERE NEW.arrivals_inserted IS NOT NULL ORDER BY key;

    -- An activity that was asked for.
    INSERT INTO activity SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
        json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]'),
        json_extract(value, '$[9]'), json_extract(value, '$[10]'), json_extract(value, '$[11]')
    FROM json_each(NEW.activities_inserted) WHERE NEW.activities_inserted IS NOT NULL;

    -- A timer that was set, or a signal that was scheduled.
    INSERT INTO timer SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')
    FROM json_each(NEW.timers_inserted) WHERE NEW.timers_inserted IS NOT NULL;

    -- A sub-orchestration that was started.
    INSERT INTO child SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]')
    FROM json_each(NEW.children_inserted) WHERE NEW.children_inserted IS NOT NULL;

    -- An idempotency key that an entity is to remember.
    INSERT INTO operation_key SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]')
    FROM json_each(NEW.operation_keys_inserted) WHERE NEW.operation_keys_inserted IS NOT NULL;
END;
