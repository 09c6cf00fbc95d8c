-- Every statement that the PostgreSQL adapter runs, but those of a commit: they are in the function `apply_group` of the
-- migrations. Ids are found by their partition and themselves; the adapter knows the partition of an id.

-- name: read_hub
-- The version of the tables, and into how many partitions the hub is divided.
SELECT schema_version, partition_count FROM hub;

-- name: create_hub
-- The one row of the hub, when its schema is new.
INSERT INTO hub VALUES (1, gen_random_uuid()::text, $1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);

-- name: create_node
-- The one owner, as if another one before the first had released it.
INSERT INTO node VALUES ('main', 0, 0, true, '', '', 'epoch');

-- name: create_partitions
-- All partitions, which nobody owns.
INSERT INTO partition SELECT number, 'main', 0 FROM generate_series(0, $1::int - 1) AS number;

-- name: read_node
-- Whether the last owner released, who it was, and for how many seconds its lease still runs. Whoever wants to take the
-- hub waits here for a commit that is in flight. Before version 17, times that are infinite cannot be subtracted.
SELECT released, owner, owner_token,
    extract(epoch FROM lease_until)::float8 - extract(epoch FROM clock_timestamp())::float8
FROM node WHERE node_id = 'main' FOR UPDATE;

-- name: take_node
-- A new incarnation: from now on no commit of an earlier one succeeds.
UPDATE node SET incarnation = incarnation + 1, released = false, owner = $1, owner_token = $2,
    lease_until = clock_timestamp() + $3::float8 * interval '1 second'
WHERE node_id = 'main' RETURNING node_id, incarnation, lsn;

-- name: take_partitions
-- New epochs for the partitions of the owner.
UPDATE partition SET node_id = $1, epoch = epoch + 1 RETURNING partition, epoch;

-- name: count_activity_deliveries
-- Activities that may have been running when the owner died, except suspects.
UPDATE activity SET deliveries = deliveries + 1 WHERE visible_at <= $1 AND deliveries < $2;

-- name: count_instance_deliveries
-- Instances that may have been running when the owner died, except suspects.
UPDATE instance SET deliveries = deliveries + 1
WHERE instance_id IN (SELECT instance_id FROM inbox UNION SELECT instance_id FROM timer WHERE due_at <= $1)
  AND status <> 'Suspended' AND deliveries < $2;

-- name: release_node
-- The owner has left in good order.
UPDATE node SET released = true WHERE node_id = $1 AND incarnation = $2 AND NOT released;

-- name: expire_lease
-- The owner writes no more, but has not left in good order.
UPDATE node SET lease_until = clock_timestamp() WHERE node_id = 'main' AND owner_token = $1 AND NOT released;

-- name: check_fence
-- The watermark, if the writer is still the owner of exactly these partitions.
SELECT lsn FROM node
WHERE node_id = $1 AND incarnation = $2 AND NOT released
  AND cardinality($3::int[]) = (SELECT count(*) FROM partition WHERE partition.node_id = $1)
  AND cardinality($3::int[]) = (
    SELECT count(*) FROM partition JOIN unnest($3::int[], $4::bigint[]) AS fence (partition, epoch)
      USING (partition, epoch) WHERE partition.node_id = $1);

-- name: renew_lease
-- The owner lives.
UPDATE node SET lease_until = clock_timestamp() + $3::float8 * interval '1 second'
WHERE node_id = $1 AND incarnation = $2 AND NOT released;

-- name: read_instance
-- One instance's row.
SELECT {row} FROM instance WHERE partition = $1 AND instance_id = $2;

-- name: load_instances
-- The rows of some instances.
SELECT {row} FROM instance JOIN unnest($1::int[], $2::text[]) AS wanted (partition, instance_id)
    USING (partition, instance_id);

-- name: load_messages
-- Their messages, in the order of sending.
SELECT * FROM inbox WHERE instance_id = ANY ($1::text[]) ORDER BY message_id;

-- name: load_activities
-- Their activities, by partition and execution.
SELECT activity.* FROM activity JOIN unnest($1::int[], $2::text[]) AS wanted (partition, execution_id)
    USING (partition, execution_id);

-- name: load_timers
-- Their timers, by partition and execution.
SELECT timer.* FROM timer JOIN unnest($1::int[], $2::text[]) AS wanted (partition, execution_id)
    USING (partition, execution_id);

-- name: load_children
-- Their sub-orchestrations, by partition and execution.
SELECT child.* FROM child JOIN unnest($1::int[], $2::text[]) AS wanted (partition, execution_id)
    USING (partition, execution_id);

-- name: load_operation_keys
-- What some entities remember, in the order of consumption.
SELECT operation_key.* FROM operation_key JOIN unnest($1::int[], $2::text[]) AS wanted (partition, instance_id)
    USING (partition, instance_id) ORDER BY position;

-- name: load_history
-- Episodes of one execution, from one on, in order.
SELECT events FROM history WHERE partition = $1 AND execution_id = $2 AND episode >= $3 ORDER BY episode LIMIT $4;

-- name: instances
-- A page of all instances.
SELECT {row} FROM instance WHERE instance_id > $1 ORDER BY instance_id LIMIT $2;

-- name: find_instances
-- A page of the orchestrations that the conditions hold for. The upper bound ends in a character that no id contains.
SELECT {row} FROM instance
WHERE instance_id > $14 AND {conditions}
ORDER BY instance_id LIMIT $15;

-- name: count_instances
-- How many orchestrations the conditions hold for, by status.
SELECT status, count(*) FROM instance WHERE {conditions} GROUP BY status;

-- name: ended_instances
-- A page of the orchestrations that have ended and that the conditions hold for, in the order of their ends.
SELECT updated_at, instance_id, revision, execution_id, episodes FROM instance
WHERE ended_at IS NOT NULL AND (ended_at, instance_id) > ($14, $15)
  AND ended_at <= coalesce($9::bigint, 9223372036854775807) AND {conditions}
ORDER BY ended_at, instance_id LIMIT $16;

-- part: conditions
-- What can be asked of orchestrations. Records that cannot be read have no parent and no tags, and what has one counts
-- as parked.
instance_id >= $1 AND instance_id < $2 AND left(instance_id, 1) <> '@'
  AND ($3::text IS NULL OR name = $3)
  AND ($4::text[] IS NULL OR name <> ALL ($4))
  AND ($5::text[] IS NULL OR status = ANY ($5))
  AND ($6::bigint IS NULL OR created_at >= $6) AND ($7::bigint IS NULL OR created_at <= $7)
  AND ($8::bigint IS NULL OR updated_at >= $8) AND ($9::bigint IS NULL OR updated_at <= $9)
  AND ($12::text IS NULL OR custom_status = $12)
  AND ($13::boolean IS NULL OR $13 = (parked IS NOT NULL
    OR NOT (is_json(failure) AND is_json(parent) AND is_json(lock) AND is_json(tags) AND is_json(events_awaited))
    OR status NOT IN ('Pending', 'Running', 'Completed', 'Failed', 'Terminated', 'Suspended', 'ContinuedAsNew',
      'Canceled')))
  AND ($10::text IS NULL OR (parent IS NOT NULL AND json_or_null(parent) ->> 'instance_id' = $10))
  AND ($11::text IS NULL OR (tags IS NOT NULL AND json_or_null(tags) @> $11::jsonb));

-- name: entities
-- A page of the entities whose ids begin with a prefix; the upper bound ends in a character that no id contains.
SELECT {entity}, CASE WHEN $6 THEN state END, {entity_rest}
FROM instance
WHERE instance_id >= $1 AND instance_id < $2 AND instance_id > $3
  AND updated_at >= coalesce($4::bigint, updated_at) AND updated_at <= coalesce($5::bigint, updated_at)
  AND ($7 OR $8 OR state IS NOT NULL OR lock IS NOT NULL)
  AND (NOT $8 OR parked IS NOT NULL OR NOT is_json(lock))
ORDER BY instance_id LIMIT $9;

-- name: entities_locked
-- A page of the entities that are locked, without state.
SELECT {entity}, NULL, {entity_rest}
FROM instance
WHERE instance_id >= '@' AND instance_id < '@' || chr(1114111) AND instance_id > $1 AND lock IS NOT NULL
ORDER BY instance_id LIMIT $2;

-- name: instances_with_messages
-- A page of the ids of instances with messages.
SELECT DISTINCT instance_id FROM inbox WHERE instance_id > $1 ORDER BY instance_id LIMIT $2;

-- name: activities_visible
-- A page of the activities that may run.
SELECT * FROM activity WHERE visible_at <= $1 AND (visible_at, execution_id, sequence) > ($2, $3, $4)
ORDER BY visible_at, execution_id, sequence LIMIT $5;

-- name: timers_due
-- A page of the timers that are due.
SELECT * FROM timer WHERE due_at <= $1 AND (due_at, execution_id, sequence) > ($2, $3, $4)
ORDER BY due_at, execution_id, sequence LIMIT $5;

-- part: row
-- The columns of an instance.
instance.partition, instance.instance_id, execution_id, revision, name, status, created_at, updated_at, input, output,
    custom_status, failure, parked, parent, state, lock, episodes, history_events, deliveries, version, tags,
    request_key, events_buffered, events_awaited;

-- part: entity
-- The columns of an entity before its state.
instance_id, created_at, updated_at, status, version, state IS NOT NULL;

-- part: entity_rest
-- The columns of an entity after its state.
lock, parked, (SELECT count(*) FROM inbox WHERE inbox.instance_id = instance.instance_id),
    (SELECT count(*) FROM timer
     WHERE timer.partition = instance.partition AND timer.execution_id = instance.execution_id);
