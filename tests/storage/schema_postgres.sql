column activity.partition integer NOT NULL
column activity.execution_id text COLLATE C NOT NULL
column activity.sequence bigint NOT NULL
column activity.instance_id text COLLATE C NOT NULL
column activity.name text NOT NULL
column activity.input text
column activity.options text
column activity.attempt bigint NOT NULL
column activity.deliveries bigint NOT NULL
column activity.scheduled_at bigint NOT NULL
column activity.visible_at bigint NOT NULL
column activity.progress text
column arrival.partition integer NOT NULL
column arrival.instance_id text COLLATE C NOT NULL
column arrival.execution_id text COLLATE C
column arrival.event text NOT NULL
column arrival.arrival_id bigint NOT NULL
column child.partition integer NOT NULL
column child.execution_id text COLLATE C NOT NULL
column child.sequence bigint NOT NULL
column child.instance_id text COLLATE C NOT NULL
column child.child_instance_id text COLLATE C NOT NULL
column history.partition integer NOT NULL
column history.execution_id text COLLATE C NOT NULL
column history.episode bigint NOT NULL
column history.events text NOT NULL
column hub.id integer NOT NULL
column hub.hub_id text NOT NULL
column hub.schema_version integer NOT NULL
column hub.partition_count integer NOT NULL
column hub.created_at bigint NOT NULL
column hub.incarnation bigint NOT NULL
column inbox.partition integer NOT NULL
column inbox.message_id bigint NOT NULL
column inbox.instance_id text COLLATE C NOT NULL
column inbox.execution_id text COLLATE C
column inbox.event text NOT NULL
column instance.partition integer NOT NULL
column instance.instance_id text COLLATE C NOT NULL
column instance.execution_id text COLLATE C NOT NULL
column instance.revision bigint NOT NULL
column instance.name text COLLATE C NOT NULL
column instance.status text COLLATE C NOT NULL
column instance.created_at bigint NOT NULL
column instance.updated_at bigint NOT NULL
column instance.input text
column instance.output text
column instance.custom_status text COLLATE C
column instance.failure text
column instance.parked text
column instance.parent text
column instance.state text
column instance.lock text
column instance.episodes bigint NOT NULL
column instance.history_events bigint NOT NULL
column instance.deliveries bigint NOT NULL
column instance.version text
column instance.tags text
column instance.request_key text
column instance.events_buffered bigint NOT NULL
column instance.events_awaited text
column instance.ended_at bigint =  CASE WHEN (status = ANY (ARRAY['Completed'::text, 'Failed'::text, 'Terminated'::text, 'Canceled'::text])) THEN updated_at ELSE NULL::bigint END
column node.node_id text NOT NULL
column node.incarnation bigint NOT NULL
column node.lsn bigint NOT NULL
column node.released boolean NOT NULL
column node.owner text NOT NULL
column node.owner_token text NOT NULL
column node.lease_until timestamp with time zone NOT NULL
column operation_key.partition integer NOT NULL
column operation_key.instance_id text COLLATE C NOT NULL
column operation_key.operation_key text COLLATE C NOT NULL
column operation_key.position bigint NOT NULL
column operation_key.answer text
column partition.partition integer NOT NULL
column partition.node_id text NOT NULL
column partition.epoch bigint NOT NULL
column request.request_id bigint NOT NULL
column request.partition integer NOT NULL
column request.method text NOT NULL
column request.arguments text NOT NULL
column request.caller text NOT NULL
column request.taker text
column request.status integer
column request.answer text
column timer.partition integer NOT NULL
column timer.execution_id text COLLATE C NOT NULL
column timer.sequence bigint NOT NULL
column timer.instance_id text COLLATE C NOT NULL
column timer.due_at bigint NOT NULL
column timer.event text
index CREATE INDEX activity_by_time ON activity USING btree (visible_at, execution_id, sequence)
index CREATE UNIQUE INDEX activity_pkey ON activity USING btree (partition, execution_id, sequence)
index CREATE INDEX arrival_by_id ON arrival USING btree (arrival_id)
index CREATE UNIQUE INDEX arrival_pkey ON arrival USING btree (partition, arrival_id)
index CREATE UNIQUE INDEX child_pkey ON child USING btree (partition, execution_id, sequence)
index CREATE UNIQUE INDEX history_pkey ON history USING btree (partition, execution_id, episode)
index CREATE UNIQUE INDEX hub_pkey ON hub USING btree (id)
index CREATE INDEX inbox_by_instance ON inbox USING btree (instance_id)
index CREATE UNIQUE INDEX inbox_pkey ON inbox USING btree (partition, message_id)
index CREATE INDEX instance_by_end ON instance USING btree (ended_at, instance_id) WHERE (ended_at IS NOT NULL)
index CREATE INDEX instance_by_id ON instance USING btree (instance_id)
index CREATE UNIQUE INDEX instance_pkey ON instance USING btree (partition, instance_id)
index CREATE UNIQUE INDEX node_pkey ON node USING btree (node_id)
index CREATE UNIQUE INDEX operation_key_pkey ON operation_key USING btree (partition, instance_id, operation_key)
index CREATE UNIQUE INDEX partition_pkey ON partition USING btree (partition)
index CREATE INDEX request_answered ON request USING btree (caller) WHERE (status IS NOT NULL)
index CREATE INDEX request_to_take ON request USING btree (request_id) WHERE (taker IS NULL)
index CREATE UNIQUE INDEX request_pkey ON request USING btree (request_id)
index CREATE INDEX timer_by_time ON timer USING btree (due_at, execution_id, sequence)
index CREATE UNIQUE INDEX timer_pkey ON timer USING btree (partition, execution_id, sequence)
check hub.hub_id_check CHECK ((id = 1))
settings activity fillfactor=80, autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
settings arrival autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
settings child autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
settings inbox autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
settings instance fillfactor=70, autovacuum_vacuum_scale_factor=0.02, autovacuum_vacuum_threshold=1000
settings node fillfactor=50, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=1000
settings request fillfactor=70, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=1000
settings timer autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
function is_json(record text) i u  BEGIN RETURN record IS NULL OR record::json IS NOT NULL; EXCEPTION WHEN OTHERS THEN RETURN false; END 
function json_or_null(record text) i u  BEGIN RETURN record::jsonb; EXCEPTION WHEN OTHERS THEN RETURN NULL; END 
