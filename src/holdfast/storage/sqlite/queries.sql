-- What the SQLite adapter asks and changes, but for commits: see `apply_group.sql`. A file has one node and one
-- partition, 0.

-- name: identify
-- What kind of file this is: whose, of which version, and whether anything is in it.
SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
FROM pragma_application_id, pragma_user_version;

-- name: create_hub
-- The one row of the hub, when the file is new.
INSERT OR IGNORE INTO hub VALUES (1, lower(hex(randomblob(16))), 1, :now);

-- name: create_node
-- The one node, as if an owner before the first had released it.
INSERT OR IGNORE INTO node VALUES ('local', 0, 0, 1, '');

-- name: create_partition
-- The one partition.
INSERT OR IGNORE INTO partition VALUES (0, 'local', 0);

-- name: read_node
-- Whether the last owner released, and who it was.
SELECT released, owner FROM node WHERE node_id = 'local';

-- name: take_node
-- A new incarnation: from now on no commit of an earlier one succeeds.
UPDATE node SET incarnation = incarnation + 1, released = 0, owner = :owner WHERE node_id = 'local'
RETURNING node_id, incarnation, lsn;

-- name: take_partitions
-- New epochs for the partitions of the node.
UPDATE partition SET node_id = :node_id, epoch = epoch + 1 RETURNING partition, epoch;

-- name: count_activity_deliveries
-- Activities that may have been running when the owner died, except suspects.
UPDATE activity SET deliveries = deliveries + 1 WHERE visible_at <= :now AND deliveries < :suspect_deliveries;

-- name: count_instance_deliveries
-- Instances that may have been running when the owner died, except suspects.
UPDATE instance SET deliveries = deliveries + 1
WHERE partition = 0
  AND instance_id IN (SELECT instance_id FROM inbox UNION SELECT instance_id FROM timer WHERE due_at <= :now)
  AND status <> 'Suspended' AND deliveries < :suspect_deliveries;

-- name: release_node
-- The owner has left in good order.
UPDATE node SET released = 1 WHERE node_id = ? AND incarnation = ? AND released = 0;

-- name: check_fence
-- The watermark, if the writer is still the owner.
SELECT lsn FROM node JOIN partition USING (node_id)
WHERE node_id = ? AND incarnation = ? AND released = 0 AND partition = 0 AND epoch = ?;

-- name: read_instance
-- One instance's row.
SELECT * FROM instance WHERE partition = 0 AND instance_id = ?;

-- name: load_instances
-- The rows of some instances; the parameter is a JSON array of ids.
SELECT * FROM instance WHERE partition = 0 AND instance_id IN (SELECT value FROM json_each(?));

-- name: load_messages
-- Their messages, in the order of sending.
SELECT * FROM inbox WHERE instance_id IN (SELECT value FROM json_each(?)) ORDER BY message_id;

-- name: load_activities
-- Their activities; the parameter is a JSON array of execution ids.
SELECT * FROM activity WHERE partition = 0 AND execution_id IN (SELECT value FROM json_each(?));

-- name: load_timers
-- Their timers; the parameter is a JSON array of execution ids.
SELECT * FROM timer WHERE partition = 0 AND execution_id IN (SELECT value FROM json_each(?));

-- name: load_children
-- Their sub-orchestrations; the parameter is a JSON array of execution ids.
SELECT * FROM child WHERE partition = 0 AND execution_id IN (SELECT value FROM json_each(?));

-- name: load_operation_keys
-- What some entities remember, in the order of consumption; the parameter is a JSON array of ids.
SELECT * FROM operation_key WHERE partition = 0 AND instance_id IN (SELECT value FROM json_each(?)) ORDER BY position;

-- name: load_history
-- The episodes of one execution, in order.
SELECT events FROM history WHERE partition = 0 AND execution_id = ? AND episode >= ? ORDER BY episode LIMIT ?;

-- name: instances
-- A page of all instances.
SELECT * FROM instance WHERE partition = 0 AND instance_id > ? ORDER BY instance_id LIMIT ?;

-- name: find_instances
-- A page of the orchestrations that the conditions hold for. One lower bound, so that nothing before the prefix is
-- visited; the upper one ends in a character that no id contains.
SELECT * FROM instance
WHERE partition = 0 AND instance_id >= max(:prefix, :after) AND instance_id < :prefix || char(0x10FFFF)
  AND instance_id <> :after AND {conditions}
ORDER BY instance_id LIMIT :limit;

-- name: count_instances
-- How many orchestrations the conditions hold for, by status.
SELECT status, count(*) FROM instance
WHERE partition = 0 AND instance_id >= :prefix AND instance_id < :prefix || char(0x10FFFF) AND {conditions}
GROUP BY status;

-- name: count_all_instances
-- The same of all of them: in the order in which they lie there. By their ids, which are random as a rule, each row of a
-- large hub would be another page to fetch.
SELECT status, count(*) FROM instance NOT INDEXED
WHERE {conditions}
GROUP BY status;

-- name: ended_instances
-- A page of the orchestrations that have ended and that the conditions hold for, in the order of their ends. The
-- statuses are spelled as in the index.
SELECT updated_at, instance_id, revision, execution_id, episodes FROM instance
WHERE (status = 'Completed' OR status = 'Failed' OR status = 'Terminated' OR status = 'Canceled')
  AND (updated_at, instance_id) > (:after_updated_at, :after)
  AND updated_at <= ifnull(:updated_until, 9223372036854775807)
  AND instance_id >= :prefix AND instance_id < :prefix || char(0x10FFFF) AND {conditions}
ORDER BY updated_at, instance_id LIMIT :limit;

-- part: conditions
-- What can be asked of orchestrations, beside how their ids begin. Records that cannot be read have no parent and no
-- tags, and what has one counts as parked.
substr(instance_id, 1, 1) <> '@'
  AND (:name IS NULL OR name = :name)
  AND (:names_excluded IS NULL OR name NOT IN (SELECT value FROM json_each(:names_excluded)))
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
  AND (:created_from IS NULL OR created_at >= :created_from) AND (:created_until IS NULL OR created_at <= :created_until)
  AND (:updated_from IS NULL OR updated_at >= :updated_from) AND (:updated_until IS NULL OR updated_at <= :updated_until)
  AND (:parent_instance_id IS NULL
    OR CASE WHEN json_valid(parent) THEN json_extract(parent, '$.instance_id') END = :parent_instance_id)
  AND (:custom_status IS NULL OR custom_status = :custom_status)
  AND (:parked IS NULL OR :parked = (parked IS NOT NULL
    OR NOT (json_valid(ifnull(failure, 'null')) AND json_valid(ifnull(parent, 'null'))
      AND json_valid(ifnull(lock, 'null')) AND json_valid(ifnull(tags, 'null'))
      AND json_valid(ifnull(events_awaited, 'null')))
    OR status NOT IN ('Pending', 'Running', 'Completed', 'Failed', 'Terminated', 'Suspended', 'ContinuedAsNew',
      'Canceled')))
  AND (:tags IS NULL OR NOT EXISTS (
    SELECT 1 FROM json_each(:tags) AS wanted
    WHERE NOT EXISTS (
      SELECT 1 FROM json_each(CASE WHEN json_valid(tags) THEN tags END) AS given
      WHERE given.key = wanted.key AND given.value = wanted.value)));

-- name: entities
-- A page of the entities whose ids begin with a prefix. One lower bound, so that nothing before the prefix is visited;
-- the upper one ends in a character that no id contains.
SELECT instance_id, created_at, updated_at, status, version, state IS NOT NULL, CASE WHEN :with_state THEN state END,
    lock, parked, (SELECT count(*) FROM inbox WHERE inbox.instance_id = instance.instance_id),
    (SELECT count(*) FROM timer WHERE timer.partition = 0 AND timer.execution_id = instance.execution_id)
FROM instance
WHERE partition = 0 AND instance_id >= max(:prefix, :after) AND instance_id < :prefix || char(0x10FFFF)
  AND instance_id <> :after
  AND updated_at BETWEEN ifnull(:updated_from, updated_at) AND ifnull(:updated_until, updated_at)
  AND (:with_empty OR :only_parked OR state IS NOT NULL OR lock IS NOT NULL)
  AND (NOT :only_parked OR parked IS NOT NULL OR NOT json_valid(ifnull(lock, 'null')))
ORDER BY instance_id LIMIT :limit;

-- name: entities_locked
-- A page of the entities that are locked, without state; bounded as above.
SELECT instance_id, created_at, updated_at, status, version, state IS NOT NULL, NULL,
    lock, parked, (SELECT count(*) FROM inbox WHERE inbox.instance_id = instance.instance_id),
    (SELECT count(*) FROM timer WHERE timer.partition = 0 AND timer.execution_id = instance.execution_id)
FROM instance
WHERE partition = 0 AND instance_id >= max('@', ?1) AND instance_id < '@' || char(0x10FFFF)
  AND instance_id <> ?1 AND lock IS NOT NULL
ORDER BY instance_id LIMIT ?2;

-- name: arrivals
-- A page of what has arrived.
SELECT * FROM arrival WHERE arrival_id > ? ORDER BY arrival_id LIMIT ?;

-- name: instances_with_messages
-- A page of the ids of instances with messages.
SELECT DISTINCT instance_id FROM inbox WHERE instance_id > ? ORDER BY instance_id LIMIT ?;

-- name: activities_visible
-- A page of the activities that may run.
SELECT * FROM activity WHERE visible_at <= ? AND (visible_at, execution_id, sequence) > (?, ?, ?)
ORDER BY visible_at, execution_id, sequence LIMIT ?;

-- name: timers_due
-- A page of the timers that are due.
SELECT * FROM timer WHERE due_at <= ? AND (due_at, execution_id, sequence) > (?, ?, ?)
ORDER BY due_at, execution_id, sequence LIMIT ?;
