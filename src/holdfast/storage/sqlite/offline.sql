-- Statements about a whole file, beside those of `queries.sql`: for checks and copies, never on behalf of a host that runs.
-- They read tables from end to end, row by row.

-- name: read_hub
-- What a hub is besides its rows: its own row, that of its one node, and the epoch of its one partition.
SELECT hub_id, partition_count, created_at, node.node_id, incarnation, lsn, released, epoch
FROM hub, node, partition WHERE partition = 0;

-- name: restore_hub
-- The hub of a file that takes over all rows of another one.
UPDATE hub SET hub_id = :hub_id, created_at = :created_at;

-- name: restore_node
-- Its node: ids that are made from the watermark and the incarnation must not come again.
UPDATE node SET incarnation = :incarnation, lsn = :lsn, released = :released;

-- name: restore_partition
-- Its partition.
UPDATE partition SET epoch = :epoch;

-- name: is_used
-- Whether anything was ever stored.
SELECT EXISTS (SELECT 1 FROM instance) OR EXISTS (SELECT 1 FROM inbox) OR EXISTS (SELECT 1 FROM node WHERE lsn > 0);

-- name: all_instance
-- Every row, in the order of the index: nothing is sorted, so that it is read as it is asked for.
SELECT * FROM instance ORDER BY partition, instance_id;

-- name: all_history
-- As above.
SELECT * FROM history ORDER BY partition, execution_id, episode;

-- name: all_inbox
-- As above.
SELECT * FROM inbox ORDER BY message_id;

-- name: all_activity
-- As above.
SELECT * FROM activity ORDER BY partition, execution_id, sequence;

-- name: all_timer
-- As above.
SELECT * FROM timer ORDER BY partition, execution_id, sequence;

-- name: all_child
-- As above.
SELECT * FROM child ORDER BY partition, execution_id, sequence;

-- name: all_operation_key
-- As above.
SELECT * FROM operation_key ORDER BY partition, instance_id, operation_key;

-- name: episodes
-- The episodes of one execution with their numbers, in order.
SELECT episode, events FROM history WHERE partition = 0 AND execution_id = ? ORDER BY episode;

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
SELECT event FROM inbox WHERE instr(event, ?) > 0 LIMIT 1000;
