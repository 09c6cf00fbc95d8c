-- Statements about a whole file, beside those of `queries.sql`: for checks and copies, never on behalf of a host that runs.
-- They read tables from end to end, row by row.

-- name: read_hub
-- What a hub is besides its rows.
SELECT hub_id, created_at, incarnation, lsn, released FROM hub, node;

-- name: restore_hub
-- The hub of a file that takes over all rows of another one.
UPDATE hub SET hub_id = :hub_id, created_at = :created_at;

-- name: restore_node
-- Its node: ids that are made from the watermark and the incarnation must not come again, nor may a fence that somebody
-- still has hold.
UPDATE node SET incarnation = max(incarnation, :incarnation) + 1, lsn = :lsn, released = :released;

-- name: restore_partition
-- Its partition.
UPDATE partition SET epoch = epoch + 1;

-- name: is_used
-- Whether an owner ever stored anything.
SELECT EXISTS (SELECT 1 FROM node WHERE lsn > 0);

-- name: has_rows
-- Whether there is anything in a table.
SELECT EXISTS (SELECT 1 FROM {table});

-- name: insert_row
-- A row that comes from elsewhere.
INSERT INTO {table} ({columns}) VALUES ({values});

-- name: remove_row
-- A row, or rows, by what their key begins with.
DELETE FROM {table} WHERE ({columns}) = ({values});

-- name: all_rows
-- Every row, as it lies there: nothing is sorted, so that it is read as it is asked for.
SELECT {columns} FROM {table};

-- name: all_history
-- As above, with the instance whose current execution it is. SQLite keeps the list of executions in a temporary index.
SELECT history.partition, history.execution_id, episode, events, owner.instance_id
FROM history LEFT JOIN (
    SELECT execution_id, min(instance_id) AS instance_id FROM instance GROUP BY execution_id
) AS owner ON owner.execution_id = history.execution_id;

-- name: episodes
-- The episodes of one execution with their numbers, in order.
SELECT episode, events FROM history WHERE partition = ? AND execution_id = ? ORDER BY episode;

-- name: doubled_executions
-- Executions that two instances have.
SELECT execution_id, min(instance_id), max(instance_id) FROM instance GROUP BY execution_id HAVING count(*) > 1;

-- name: orphaned_activity
-- Activities that no execution that goes on has asked for.
SELECT instance_id, execution_id, sequence FROM activity AS work
WHERE NOT EXISTS (
    SELECT 1 FROM instance
    WHERE instance.partition = work.partition AND instance.instance_id = work.instance_id
      AND instance.execution_id = work.execution_id
      AND instance.status NOT IN ('Completed', 'Failed', 'Terminated', 'Canceled'));

-- name: orphaned_timer
-- Timers that no execution that goes on has set.
SELECT instance_id, execution_id, sequence FROM timer AS work
WHERE NOT EXISTS (
    SELECT 1 FROM instance
    WHERE instance.partition = work.partition AND instance.instance_id = work.instance_id
      AND instance.execution_id = work.execution_id
      AND instance.status NOT IN ('Completed', 'Failed', 'Terminated', 'Canceled'));

-- name: orphaned_child
-- Sub-orchestrations that no execution that goes on waits for.
SELECT instance_id, execution_id, sequence FROM child AS work
WHERE NOT EXISTS (
    SELECT 1 FROM instance
    WHERE instance.partition = work.partition AND instance.instance_id = work.instance_id
      AND instance.execution_id = work.execution_id
      AND instance.status NOT IN ('Completed', 'Failed', 'Terminated', 'Canceled'));

-- name: orphaned_history
-- Histories of executions that no instance has.
SELECT execution_id, count(*) FROM history
WHERE partition = 0 AND execution_id NOT IN (SELECT execution_id FROM instance)
GROUP BY execution_id;

-- name: orphaned_operation_key
-- Idempotency keys of entities that are not there.
SELECT instance_id, operation_key FROM operation_key AS remembered
WHERE NOT EXISTS (
    SELECT 1 FROM instance
    WHERE instance.partition = remembered.partition AND instance.instance_id = remembered.instance_id);

-- name: messages_to_nobody
-- The first message to each orchestration that is not there; it may be the one that makes it.
SELECT instance_id, message_id, event FROM inbox
WHERE substr(instance_id, 1, 1) <> '@'
  AND message_id IN (
    SELECT min(message_id) FROM inbox
    WHERE instance_id NOT IN (SELECT instance_id FROM instance) GROUP BY instance_id)
ORDER BY message_id;

-- name: messages_about
-- Messages to anybody with a text in them.
SELECT event FROM inbox WHERE instr(event, ?1) > 0 UNION ALL SELECT event FROM arrival WHERE instr(event, ?1) > 0
LIMIT 1000;

-- name: arrivals_for
-- What has arrived for some instances.
SELECT partition, -arrival_id, instance_id, execution_id, event FROM arrival
WHERE instance_id IN (SELECT value FROM json_each(?));

-- name: all_arrival
-- In the order in which it came, for which the next ids stand.
SELECT partition, instance_id, execution_id, event, arrival_id FROM arrival ORDER BY arrival_id;
