-- Statements about a whole hub, beside those of `queries.sql`: for checks and copies, never on behalf of a host that
-- runs. They read tables from end to end, through cursors.

-- name: read_hub
-- What a hub is besides its rows: the highest numbers of its owners, and whether all of them have left in good order.
SELECT hub_id, created_at, hub.incarnation, coalesce(max(lsn), 0) AS lsn, coalesce(bool_and(released), true) AS released
FROM hub LEFT JOIN node ON true GROUP BY hub_id, created_at, hub.incarnation;

-- name: owners
-- Who owns the hub, or owned it last, whether others have freed its place, and for how many seconds the leases still run.
SELECT owner, released, owner_token = '', extract(epoch FROM lease_until)::float8 - extract(epoch FROM clock_timestamp())::float8
FROM node WHERE owner <> '' ORDER BY node_id;

-- name: living_owners
-- The owners whose leases are not over. Nobody takes the hub until the end of the transaction, and no owner that was
-- paused commits.
WITH locked AS MATERIALIZED (SELECT id FROM hub FOR UPDATE)
SELECT owner FROM (SELECT node.* FROM locked, node ORDER BY node_id FOR UPDATE OF node) AS node
WHERE NOT released AND lease_until > clock_timestamp();

-- name: restore_hub
-- The hub that takes over all rows of another one.
UPDATE hub SET hub_id = $1, created_at = $2, incarnation = greatest(incarnation, $3::bigint) + 1;

-- name: restore_node
-- Its last owner: ids that are made from the watermark and the incarnation must not come again. Nobody else has owned
-- anything that was stored here.
INSERT INTO node VALUES ('n0', 0, $1, $2, 'the hub that was exported', '', 'epoch')
ON CONFLICT (node_id) DO UPDATE SET incarnation = 0, lsn = $1, released = $2, owner = excluded.owner, owner_token = '',
    lease_until = 'epoch';

-- name: restore_partitions
-- Its partitions; those of an owner that has not released them are taken from it when somebody comes.
UPDATE partition SET epoch = epoch + 1, node_id = CASE WHEN $1::boolean THEN '' ELSE 'n0' END;

-- name: is_used
-- Whether an owner ever stored anything.
SELECT EXISTS (SELECT 1 FROM node WHERE lsn > 0);

-- name: has_rows
-- Whether there is anything in a table.
SELECT EXISTS (SELECT 1 FROM {table});

-- name: declare
-- Reading in pages, on one snapshot.
DECLARE {cursor} NO SCROLL CURSOR FOR {query};

-- name: fetch
-- One page.
FETCH {rows} FROM {cursor};

-- name: close
-- Done.
CLOSE {cursor};

-- name: all_rows
-- Every row, as it lies there.
SELECT {columns} FROM {table};

-- name: all_history
-- As above, with the instance whose current execution it is.
SELECT history.partition, history.execution_id, episode, events, owner.instance_id
FROM history LEFT JOIN (
    SELECT partition, execution_id, min(instance_id) AS instance_id FROM instance GROUP BY partition, execution_id
) AS owner USING (partition, execution_id);

-- name: episodes
-- The episodes of one execution with their numbers, in order.
SELECT episode, events FROM history WHERE partition = $1 AND execution_id = $2 ORDER BY episode;

-- name: doubled_executions
-- Executions that two instances have.
SELECT execution_id, min(instance_id), max(instance_id) FROM instance GROUP BY execution_id HAVING count(*) > 1;

-- name: orphaned_activity
-- Activities that no execution that goes on has asked for.
SELECT instance_id, execution_id, sequence FROM activity AS work WHERE {is_nobodys};

-- name: orphaned_timer
-- Timers that no execution that goes on has set.
SELECT instance_id, execution_id, sequence FROM timer AS work WHERE {is_nobodys};

-- name: orphaned_child
-- Sub-orchestrations that no execution that goes on waits for.
SELECT instance_id, execution_id, sequence FROM child AS work WHERE {is_nobodys};

-- name: orphaned_history
-- Histories of executions that no instance has.
SELECT execution_id, count(*) FROM history AS work WHERE {is_unknown} GROUP BY partition, execution_id;

-- name: orphaned_operation_key
-- Idempotency keys of entities that are not there.
SELECT instance_id, operation_key FROM operation_key AS work WHERE {is_not_there};

-- name: mend_activity
-- The removal of what `orphaned_activity` finds; how many rows that were.
WITH removed AS (DELETE FROM activity AS work WHERE {is_nobodys} RETURNING 1) SELECT count(*) FROM removed;

-- name: mend_timer
-- As above.
WITH removed AS (DELETE FROM timer AS work WHERE {is_nobodys} RETURNING 1) SELECT count(*) FROM removed;

-- name: mend_child
-- As above.
WITH removed AS (DELETE FROM child AS work WHERE {is_nobodys} RETURNING 1) SELECT count(*) FROM removed;

-- name: mend_history
-- As above; how many histories that were.
WITH removed AS (DELETE FROM history AS work WHERE {is_unknown} RETURNING partition, execution_id)
SELECT count(DISTINCT (partition, execution_id)) FROM removed;

-- name: mend_operation_key
-- As above.
WITH removed AS (DELETE FROM operation_key AS work WHERE {is_not_there} RETURNING 1) SELECT count(*) FROM removed;

-- name: messages_to_nobody
-- The first message to each orchestration that is not there; it may be the one that makes it.
SELECT instance_id, message_id, event FROM inbox JOIN (
    SELECT instance_id, min(message_id) AS message_id FROM inbox
    WHERE left(instance_id, 1) <> '@'
      AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.instance_id = inbox.instance_id)
    GROUP BY instance_id
) AS first USING (instance_id, message_id)
ORDER BY message_id;

-- name: messages_about
-- Messages to anybody with a text in them.
SELECT event FROM inbox WHERE strpos(event, $1) > 0 UNION ALL SELECT event FROM arrival WHERE strpos(event, $1) > 0
LIMIT 1000;

-- name: arrivals_for
-- What has arrived for some instances.
SELECT partition, -arrival_id, instance_id, execution_id, event FROM arrival WHERE instance_id = ANY ($1::text[]);

-- name: all_arrival
-- In the order in which it came, for which the next ids stand.
SELECT partition, instance_id, execution_id, event, arrival_id FROM arrival ORDER BY arrival_id;

-- part: is_nobodys
-- Whether work belongs to no execution that goes on.
NOT EXISTS (
    SELECT 1 FROM instance
    WHERE instance.partition = work.partition AND instance.instance_id = work.instance_id
      AND instance.execution_id = work.execution_id
      AND instance.status NOT IN ('Completed', 'Failed', 'Terminated', 'Canceled'));

-- part: is_unknown
-- Whether no instance has an execution.
NOT EXISTS (
    SELECT 1 FROM instance WHERE instance.partition = work.partition AND instance.execution_id = work.execution_id);

-- part: is_not_there
-- Whether there is no instance of this id.
NOT EXISTS (
    SELECT 1 FROM instance WHERE instance.partition = work.partition AND instance.instance_id = work.instance_id);
