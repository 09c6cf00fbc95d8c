-- Every statement that the PostgreSQL adapter runs on rows, but those of a commit: they are in the function `apply_group`
-- of the migrations. Ids are found by their partition and themselves; the adapter knows the partition of an id. Columns
-- are named: a later version may have added some, while hosts of this one still run.
--
-- Hosts take partitions one after the other: each locks the row of the hub first, then the rows of nodes in their order,
-- then partitions, which nobody else changes but a host that gives up its own. The statements of a commit lock the row of
-- their node, then rows of instances, messages and the like in any order: only the owner of their partitions does that,
-- and whoever takes those partitions, or counts deliveries in them, waits for the row of the node first. What only
-- creates rows, or changes the row of a node alone, has nothing to wait for while it holds something. The advisory lock
-- of migrations comes before all of it. Several hosts change the same requests and offers: they lock them in the order of
-- their keys, or leave alone what is locked.

-- name: read_hub
-- The version of the tables, the least that a host must know to use them, and into how many partitions the hub is divided.
SELECT schema_version, compatible_version, partition_count FROM hub;

-- name: create_hub
-- The one row of the hub, when its schema is new.
INSERT INTO hub VALUES (1, gen_random_uuid()::text, 0, 0, $1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    0);

-- name: migrated
-- The tables are of this version now, and hosts may go on that know at least that one.
UPDATE hub SET schema_version = $1, compatible_version = $2;

-- name: create_partitions
-- All partitions, which nobody owns.
INSERT INTO partition SELECT number, '', 0 FROM generate_series(0, $1::int - 1) AS number;

-- name: lock_hub
-- Hosts take partitions one after the other.
SELECT incarnation FROM hub FOR UPDATE;

-- name: read_nodes
-- All places, with the seconds that their leases still run. Before version 17, times that are infinite cannot be
-- subtracted.
SELECT node_id, released, owner, owner_token,
    extract(epoch FROM lease_until)::float8 - extract(epoch FROM clock_timestamp())::float8 AS left_s
FROM node ORDER BY node_id;

-- name: lock_node
-- One place, once a commit of its host that is in flight has ended; it may have prolonged the lease.
SELECT released, extract(epoch FROM lease_until)::float8 - extract(epoch FROM clock_timestamp())::float8
FROM node WHERE node_id = $1 FOR UPDATE;

-- name: create_node
-- A place of which nobody has had any.
INSERT INTO node VALUES ($1, 0, 0, true, '', '', 'epoch', '{}');

-- name: free_node
-- Its host is taken for dead: no commit of it succeeds any more.
UPDATE node SET released = true, owner_token = '' WHERE node_id = $1;

-- name: free_partitions
-- What a host had that is gone.
UPDATE partition SET node_id = '' WHERE node_id = $1 RETURNING partition;

-- name: read_partitions
-- Who owns which partition.
SELECT partition, node_id FROM partition ORDER BY partition;

-- name: next_incarnation
-- The number of the next ownership of anything.
UPDATE hub SET incarnation = incarnation + 1 RETURNING incarnation;

-- name: take_node
-- A host has a place; what it owns is told by its partitions. Its numbers go on from the highest that there are.
UPDATE node SET incarnation = $2, released = false, owner = $3, owner_token = $4,
    lsn = (SELECT max(lsn) FROM node),
    lease_until = clock_timestamp() + $5::float8 * interval '1 second', functions = $6
WHERE node_id = $1 RETURNING lsn;

-- name: leave_partitions
-- A host gives up some of what it owns.
UPDATE partition SET node_id = '' WHERE partition = ANY ($1::int[]);

-- name: take_partitions
-- New epochs for all that a host owns from now on.
UPDATE partition SET node_id = $1, epoch = epoch + 1 WHERE partition = ANY ($2::int[]) RETURNING partition, epoch;

-- name: count_activity_deliveries
-- Activities that may have been running when their host died, except suspects, and those that other hosts have.
UPDATE activity SET deliveries = deliveries + 1
WHERE visible_at <= $1 AND deliveries < $2 AND partition = ANY ($3::int[]) AND NOT EXISTS (
    SELECT 1 FROM offer WHERE offer.partition = activity.partition AND offer.execution_id = activity.execution_id
      AND offer.sequence = activity.sequence AND offer.attempt = activity.attempt);

-- name: count_instance_deliveries
-- Instances that may have been running when their host died, except suspects.
UPDATE instance SET deliveries = deliveries + 1
WHERE instance_id IN (SELECT instance_id FROM inbox UNION SELECT instance_id FROM timer WHERE due_at <= $1)
  AND status <> 'Suspended' AND deliveries < $2 AND partition = ANY ($3::int[]);

-- name: release_node
-- The host has left in good order.
UPDATE node SET released = true WHERE node_id = $1 AND incarnation = $2 AND NOT released;

-- name: expire_lease
-- The host writes no more, but has not left in good order.
UPDATE node SET lease_until = clock_timestamp() WHERE owner_token = $1 AND NOT released;

-- name: check_fence
-- The watermark, if the writer is still the owner of exactly these partitions.
SELECT lsn FROM node
WHERE node_id = $1 AND incarnation = $2 AND NOT released AND {owns};

-- part: owns
-- Whether a host owns exactly some partitions, in some epochs.
cardinality($3::int[]) = (SELECT count(*) FROM partition WHERE partition.node_id = $1)
  AND cardinality($3::int[]) = (
    SELECT count(*) FROM partition JOIN unnest($3::int[], $4::bigint[]) AS fence (partition, epoch)
      USING (partition, epoch) WHERE partition.node_id = $1);

-- name: renew
-- The owner lives, if it still is one; with how many partitions there are, and how many each other host has that lives.
-- One that waits here for a takeover has lost its place then; nobody else changes the partitions of a place.
WITH renewed AS (
    UPDATE node SET lease_until = clock_timestamp() + $5::float8 * interval '1 second'
    WHERE node_id = $1 AND incarnation = $2 AND NOT released RETURNING node_id
), owned AS (
    SELECT node_id, count(*) AS partitions FROM partition GROUP BY node_id
)
SELECT EXISTS (SELECT FROM renewed) AND {owns} AS holds, (SELECT count(*) FROM partition) AS partitions,
    ARRAY (
      SELECT coalesce(owned.partitions, 0) FROM node LEFT JOIN owned USING (node_id)
      WHERE NOT released AND lease_until > clock_timestamp() AND node_id <> $1
    ) AS others;

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
SELECT partition, message_id, instance_id, execution_id, event FROM inbox WHERE instance_id = ANY ($1::text[]) ORDER BY message_id;

-- name: load_activities
-- Their activities, by partition and execution.
SELECT {activity} FROM activity JOIN unnest($1::int[], $2::text[]) AS wanted (partition, execution_id)
    USING (partition, execution_id);

-- name: load_timers
-- Their timers, by partition and execution.
SELECT {timer} FROM timer JOIN unnest($1::int[], $2::text[]) AS wanted (partition, execution_id)
    USING (partition, execution_id);

-- name: load_children
-- Their sub-orchestrations, by partition and execution.
SELECT partition, execution_id, sequence, instance_id, child_instance_id FROM child JOIN unnest($1::int[], $2::text[]) AS wanted (partition, execution_id)
    USING (partition, execution_id);

-- name: load_operation_keys
-- What some entities remember, in the order of consumption.
SELECT partition, instance_id, operation_key, position, answer FROM operation_key JOIN unnest($1::int[], $2::text[]) AS wanted (partition, instance_id)
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

-- name: arrivals
-- A page of what has arrived in some partitions, or in all.
SELECT partition, instance_id, execution_id, event, arrival_id FROM arrival WHERE {owned} AND arrival_id > $2 ORDER BY arrival_id LIMIT $3;

-- name: instances_with_messages
-- A page of the ids of instances with messages.
SELECT DISTINCT instance_id FROM inbox WHERE {owned} AND instance_id > $2 ORDER BY instance_id LIMIT $3;

-- name: activities_visible
-- A page of the activities that may run.
SELECT {activity} FROM activity WHERE {owned} AND visible_at <= $2 AND (visible_at, execution_id, sequence) > ($3, $4, $5)
  AND NOT EXISTS (
    SELECT 1 FROM offer WHERE offer.partition = activity.partition AND offer.execution_id = activity.execution_id
      AND offer.sequence = activity.sequence AND offer.attempt = activity.attempt)
ORDER BY visible_at, execution_id, sequence LIMIT $6;

-- name: timers_due
-- A page of the timers that are due.
SELECT {timer} FROM timer WHERE {owned} AND due_at <= $2 AND (due_at, execution_id, sequence) > ($3, $4, $5)
ORDER BY due_at, execution_id, sequence LIMIT $6;

-- part: owned
-- Whether a row is in one of some partitions; of all, if that is NULL.
($1::int[] IS NULL OR partition = ANY ($1));

-- name: send_requests
-- Requests of one host, for whoever owns their partitions; they are told, if that is possible.
WITH sent AS (
    INSERT INTO request (request_id, partition, method, arguments, caller)
    SELECT request_id, partition, method, arguments, $5
    FROM unnest($1::bigint[], $2::int[], $3::text[], $4::text[]) AS new (request_id, partition, method, arguments)
    ON CONFLICT DO NOTHING
)
SELECT pg_notify($6, $7) WHERE $6::text IS NOT NULL;

-- name: take_requests
-- Requests for some partitions, or all, that nobody has taken.
WITH found AS (
    SELECT request_id FROM request WHERE {owned} AND taker IS NULL
    ORDER BY request_id LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE request SET taker = $3 FROM found WHERE request.request_id = found.request_id
RETURNING request.request_id, method, arguments, false;

-- name: take_orphans
-- Those that somebody had taken who is gone, and those of the taker itself that it has not heard of. Those of callers
-- who are gone go.
WITH living AS (
    SELECT owner_token FROM node WHERE NOT released AND lease_until > clock_timestamp()
), gone AS (
    SELECT request_id FROM request WHERE caller NOT IN (SELECT owner_token FROM living) FOR UPDATE SKIP LOCKED
), cleared AS (
    DELETE FROM request USING gone WHERE request.request_id = gone.request_id
), found AS (
    SELECT request_id, taker FROM request
    WHERE {owned} AND status IS NULL AND request_id <> ALL ($4::bigint[])
      AND (taker NOT IN (SELECT owner_token FROM living) OR taker = $3)
      AND caller IN (SELECT owner_token FROM living)
    ORDER BY request_id LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE request SET taker = $3 FROM found WHERE request.request_id = found.request_id
RETURNING request.request_id, method, arguments, found.taker <> $3;

-- name: give_requests_back
-- Requests whose partitions have another owner by now.
WITH found AS (
    SELECT request_id FROM request WHERE request_id = ANY ($1::bigint[]) AND taker = $2 AND status IS NULL
    ORDER BY request_id FOR UPDATE
)
UPDATE request SET taker = NULL FROM found WHERE request.request_id = found.request_id;

-- name: answer_requests
-- Answers; the first one counts. The callers are told, if that is possible; of very many, all are.
WITH found AS (
    SELECT request_id FROM request WHERE request_id = ANY ($1::bigint[]) AND status IS NULL
    ORDER BY request_id FOR UPDATE
), answered AS (
    UPDATE request SET status = new.status, answer = new.answer
    FROM found JOIN unnest($1::bigint[], $2::int[], $3::text[]) AS new (request_id, status, answer) USING (request_id)
    WHERE request.request_id = found.request_id
    RETURNING caller
), told AS (
    SELECT string_agg(DISTINCT caller, ' ') AS callers FROM answered
)
SELECT pg_notify($4, concat('answers ', CASE WHEN length(callers) > 7000 THEN '*' ELSE callers END))
FROM told WHERE $4::text IS NOT NULL AND callers IS NOT NULL;

-- name: collect_answers
-- The answers for one host. They go with their requests.
WITH found AS (
    SELECT request_id FROM request WHERE caller = $1 AND status IS NOT NULL ORDER BY request_id FOR UPDATE
)
DELETE FROM request USING found WHERE request.request_id = found.request_id
RETURNING request.request_id, status, answer;

-- name: requests_left
-- Which requests are still there.
SELECT request_id FROM request WHERE request_id = ANY ($1::bigint[]);

-- name: withdraw_requests
-- Requests for whose answers nobody waits.
WITH found AS (
    SELECT request_id FROM request WHERE request_id = ANY ($1::bigint[]) ORDER BY request_id FOR UPDATE
)
DELETE FROM request USING found WHERE request.request_id = found.request_id;

-- name: lend_activities
-- What goes on on a host although its partitions are another one's now. Whoever had offered it runs it himself.
INSERT INTO offer SELECT partition, execution_id, sequence, attempt, function, queue, start_by, $8
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[])
  AS running (partition, execution_id, sequence, attempt, function, queue, start_by)
ORDER BY partition, execution_id COLLATE "C", sequence
ON CONFLICT (partition, execution_id, sequence) DO UPDATE
SET attempt = excluded.attempt, start_by = excluded.start_by, taker = excluded.taker
WHERE offer.attempt <= excluded.attempt;

-- name: offer_activities
-- Activities for which their owner has no room or no code, or whose queue it does not serve.
INSERT INTO offer SELECT partition, execution_id, sequence, attempt, function, queue, start_by, NULL
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[])
  AS offered (partition, execution_id, sequence, attempt, function, queue, start_by)
ORDER BY partition, execution_id COLLATE "C", sequence
ON CONFLICT (partition, execution_id, sequence) DO UPDATE
SET attempt = excluded.attempt, start_by = excluded.start_by, taker = NULL
WHERE offer.attempt < excluded.attempt;

-- name: borrow_activities
-- Offers of others, of activities that this host can run. Whoever commits their outcome first has done them.
WITH found AS (
    SELECT offer.partition, offer.execution_id, offer.sequence
    FROM offer JOIN activity USING (partition, execution_id, sequence, attempt)
    WHERE taker IS NULL AND function = ANY ($1::text[]) AND NOT partition = ANY ($2::int[])
      AND ($5::text[] IS NULL OR queue = ANY ($5))
    ORDER BY visible_at LIMIT $3 FOR UPDATE OF offer SKIP LOCKED
), taken AS (
    UPDATE offer SET taker = $4 FROM found
    WHERE (offer.partition, offer.execution_id, offer.sequence)
        = (found.partition, found.execution_id, found.sequence)
    RETURNING offer.partition, offer.execution_id, offer.sequence
)
SELECT {activity} FROM activity JOIN taken USING (partition, execution_id, sequence);

-- name: reclaim_activities
-- Own offers that nobody has taken and that can run here now, or should have started; and those whose takers are gone.
WITH living AS (
    SELECT owner_token FROM node WHERE NOT released AND lease_until > clock_timestamp()
), found AS (
    SELECT offer.partition, offer.execution_id, offer.sequence, taker IS NOT NULL AS was_begun
    FROM offer JOIN activity USING (partition, execution_id, sequence, attempt)
    WHERE {owned} AND CASE WHEN taker IS NULL
        THEN function = ANY ($2::text[]) AND ($4::text[] IS NULL OR queue = ANY ($4)) OR start_by <= $5
        ELSE taker NOT IN (SELECT owner_token FROM living) END
    ORDER BY visible_at LIMIT $3 FOR UPDATE OF offer SKIP LOCKED
), gone AS (
    DELETE FROM offer USING found
    WHERE (offer.partition, offer.execution_id, offer.sequence)
        = (found.partition, found.execution_id, found.sequence)
)
SELECT was_begun, {activity} FROM activity JOIN found USING (partition, execution_id, sequence);

-- name: give_offers_back
-- What a host has taken and does not run: it begins again, or stops.
WITH found AS (
    SELECT partition, execution_id, sequence FROM offer
    WHERE taker = $1 AND NOT EXISTS (
        SELECT 1 FROM unnest($2::text[], $3::bigint[]) AS kept (execution_id, sequence)
        WHERE kept.execution_id = offer.execution_id AND kept.sequence = offer.sequence)
    ORDER BY partition, execution_id, sequence FOR UPDATE
)
UPDATE offer SET taker = NULL FROM found
WHERE (offer.partition, offer.execution_id, offer.sequence) = (found.partition, found.execution_id, found.sequence);

-- name: clear_offers
-- Of attempts that are over.
WITH ended AS (
    SELECT partition, execution_id, sequence FROM offer WHERE {owned} AND NOT EXISTS (
        SELECT 1 FROM activity WHERE activity.partition = offer.partition AND activity.execution_id = offer.execution_id
          AND activity.sequence = offer.sequence AND activity.attempt = offer.attempt)
    FOR UPDATE SKIP LOCKED
)
DELETE FROM offer USING ended
WHERE (offer.partition, offer.execution_id, offer.sequence) = (ended.partition, ended.execution_id, ended.sequence);

-- name: offers
-- Of which activities in which queues anything is offered or lent of some partitions, or of all, and whether for a taker.
SELECT queue, function, bool_or(taker IS NULL) FROM offer WHERE {owned} GROUP BY queue, function;

-- name: post_arrivals
-- Messages that no transition of the sender has to do with.
INSERT INTO arrival (partition, instance_id, execution_id, event)
SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::text[]);

-- name: functions
-- What hosts can run that live, but for standbys, which run nothing.
SELECT DISTINCT unnest(functions) FROM node
WHERE NOT released AND lease_until > clock_timestamp() AND incarnation > 0;

-- name: tell
-- A hint, in a transaction of its own.
SELECT pg_notify($1, $2);

-- name: partitions_of_others
-- A partition of each other host.
SELECT min(partition) FROM partition JOIN node USING (node_id) WHERE owner_token <> $1 GROUP BY node_id;

-- part: activity
-- The columns of an activity.
activity.partition, activity.execution_id, activity.sequence, activity.instance_id, activity.name, activity.input,
activity.options, activity.attempt, activity.deliveries, activity.scheduled_at, activity.visible_at, activity.progress;

-- part: timer
-- The columns of a timer.
timer.partition, timer.execution_id, timer.sequence, timer.instance_id, timer.due_at, timer.event;

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
