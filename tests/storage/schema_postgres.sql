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
column hub.compatible_version integer NOT NULL
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
column node.functions ARRAY NOT NULL
column offer.partition integer NOT NULL
column offer.execution_id text COLLATE C NOT NULL
column offer.sequence bigint NOT NULL
column offer.attempt bigint NOT NULL
column offer.function text COLLATE C NOT NULL
column offer.queue text COLLATE C NOT NULL
column offer.start_by bigint
column offer.taker text
column operation_key.partition integer NOT NULL
column operation_key.instance_id text COLLATE C NOT NULL
column operation_key.operation_key text COLLATE C NOT NULL
column operation_key.position bigint NOT NULL
column operation_key.answer text
column partition.partition integer NOT NULL
column partition.node_id text NOT NULL
column partition.epoch bigint NOT NULL
column request.partition integer NOT NULL
column request.request_id bigint NOT NULL
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
index CREATE UNIQUE INDEX offer_pkey ON offer USING btree (partition, execution_id, sequence)
index CREATE UNIQUE INDEX operation_key_pkey ON operation_key USING btree (partition, instance_id, operation_key)
index CREATE UNIQUE INDEX partition_pkey ON partition USING btree (partition)
index CREATE INDEX request_answered ON request USING btree (caller) WHERE (status IS NOT NULL)
index CREATE INDEX request_by_id ON request USING btree (request_id)
index CREATE INDEX request_to_take ON request USING btree (request_id) WHERE (taker IS NULL)
index CREATE UNIQUE INDEX request_pkey ON request USING btree (partition, request_id)
index CREATE INDEX timer_by_time ON timer USING btree (due_at, execution_id, sequence)
index CREATE UNIQUE INDEX timer_pkey ON timer USING btree (partition, execution_id, sequence)
check hub.hub_id_check CHECK ((id = 1))
settings activity fillfactor=80, autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
settings arrival autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
settings child autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
settings inbox autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
settings instance fillfactor=70, autovacuum_vacuum_scale_factor=0.02, autovacuum_vacuum_threshold=1000
settings node fillfactor=50, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=1000
settings offer autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
settings request fillfactor=70, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=1000
settings timer autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_threshold=1000
function apply_group(path text, writer text, its_incarnation bigint, lsn_before bigint, lsn_after bigint, lease_s double precision, touched integer[], epochs bigint[], kinds text[], changes json[], counts bigint[]) v u  #variable_conflict use_column DECLARE began CONSTANT TIMESTAMPTZ := clock_timestamp(); found BIGINT; given JSON; BEGIN IF current_setting('search_path') <> path THEN PERFORM set_config('search_path', path, true); END IF; IF current_setting('synchronous_commit') = 'off' THEN PERFORM set_config('synchronous_commit', 'on', true); END IF; -- The fence: one row changes, or the writer is not the owner, or the group does not follow. Partitions move in a -- transaction of their owner, or after its place was freed: since only the row of the place is looked at anew after -- waiting for it. What only arrives may be in partitions of others. UPDATE node SET lsn = lsn_after, lease_until = clock_timestamp() + lease_s * interval '1 second' WHERE node_id = writer AND incarnation = its_incarnation AND lsn = lsn_before AND NOT released AND cardinality(touched) = ( SELECT count(*) FROM partition JOIN unnest(touched, epochs) AS fence (partition, epoch) USING (partition, epoch) WHERE partition.node_id = writer); GET DIAGNOSTICS found = ROW_COUNT; IF found <> 1 THEN RAISE EXCEPTION 'the fence of % does not hold, or lsn % is not the last', writer, lsn_before USING ERRCODE = 'HF001'; END IF; FOR number IN 1 .. cardinality(kinds) LOOP given := changes[number]; CASE kinds[number] WHEN 'remove_history' THEN -- all episodes of executions; it counts those that had as many as is said WITH removed AS ( DELETE FROM history USING json_to_recordset(given) AS gone (partition INTEGER, execution_id TEXT, episodes BIGINT) WHERE history.partition = gone.partition AND history.execution_id = gone.execution_id RETURNING gone.partition, gone.execution_id, gone.episodes ), exact AS ( SELECT FROM removed GROUP BY partition, execution_id, episodes HAVING count(*) = episodes ) SELECT count(*) FROM exact INTO found; WHEN 'remove_messages' THEN DELETE FROM inbox USING json_to_recordset(given) AS gone (partition INTEGER, message_id BIGINT) WHERE inbox.partition = gone.partition AND inbox.message_id = gone.message_id; WHEN 'remove_arrivals' THEN DELETE FROM arrival USING json_to_recordset(given) AS gone (partition INTEGER, arrival_id BIGINT) WHERE arrival.partition = gone.partition AND arrival.arrival_id = gone.arrival_id; WHEN 'remove_activities' THEN DELETE FROM activity USING json_to_recordset(given) AS gone (partition INTEGER, execution_id TEXT, sequence BIGINT) WHERE activity.partition = gone.partition AND activity.execution_id = gone.execution_id AND activity.sequence = gone.sequence; WHEN 'remove_timers' THEN DELETE FROM timer USING json_to_recordset(given) AS gone (partition INTEGER, execution_id TEXT, sequence BIGINT) WHERE timer.partition = gone.partition AND timer.execution_id = gone.execution_id AND timer.sequence = gone.sequence; WHEN 'remove_children' THEN DELETE FROM child USING json_to_recordset(given) AS gone (partition INTEGER, execution_id TEXT, sequence BIGINT) WHERE child.partition = gone.partition AND child.execution_id = gone.execution_id AND child.sequence = gone.sequence; WHEN 'remove_operation_keys' THEN DELETE FROM operation_key USING json_to_recordset(given) AS gone (partition INTEGER, instance_id TEXT, operation_key TEXT) WHERE operation_key.partition = gone.partition AND operation_key.instance_id = gone.instance_id AND operation_key.operation_key = gone.operation_key; WHEN 'remove_instances' THEN DELETE FROM instance USING json_to_recordset(given) AS gone (partition INTEGER, instance_id TEXT, revision BIGINT) WHERE instance.partition = gone.partition AND instance.instance_id = gone.instance_id AND instance.revision = gone.revision; WHEN 'restart_instances' THEN -- what is fixed within an execution; their images follow UPDATE instance SET execution_id = new.execution_id, name = new.name, created_at = new.created_at, input = new.input, parent = new.parent, version = new.version, tags = new.tags, request_key = new.request_key FROM json_to_recordset(given) AS new (partition INTEGER, instance_id TEXT, revision_before BIGINT, execution_id TEXT, name TEXT, created_at BIGINT, input TEXT, parent TEXT, version TEXT, tags TEXT, request_key TEXT) WHERE instance.partition = new.partition AND instance.instance_id = new.instance_id AND instance.revision = new.revision_before; WHEN 'update_instances' THEN UPDATE instance SET revision = new.revision, status = new.status, updated_at = new.updated_at, output = new.output, custom_status = new.custom_status, failure = new.failure, parked = new.parked, state = new.state, lock = new.lock, episodes = new.episodes, history_events = new.history_events, deliveries = new.deliveries, events_buffered = new.events_buffered, events_awaited = new.events_awaited FROM json_to_recordset(given) AS new (partition INTEGER, instance_id TEXT, revision_before BIGINT, revision BIGINT, status TEXT, updated_at BIGINT, output TEXT, custom_status TEXT, failure TEXT, parked TEXT, state TEXT, lock TEXT, episodes BIGINT, history_events BIGINT, deliveries BIGINT, events_buffered BIGINT, events_awaited TEXT) WHERE instance.partition = new.partition AND instance.instance_id = new.instance_id AND instance.revision = new.revision_before; WHEN 'update_activities' THEN UPDATE activity SET attempt = new.attempt, deliveries = new.deliveries, visible_at = new.visible_at, progress = new.progress FROM json_to_recordset(given) AS new (partition INTEGER, execution_id TEXT, sequence BIGINT, attempt BIGINT, deliveries BIGINT, visible_at BIGINT, progress TEXT) WHERE activity.partition = new.partition AND activity.execution_id = new.execution_id AND activity.sequence = new.sequence; WHEN 'insert_instances' THEN INSERT INTO instance SELECT * FROM json_to_recordset(given) AS new (partition INTEGER, instance_id TEXT, execution_id TEXT, revision BIGINT, name TEXT, status TEXT, created_at BIGINT, updated_at BIGINT, input TEXT, output TEXT, custom_status TEXT, failure TEXT, parked TEXT, parent TEXT, state TEXT, lock TEXT, episodes BIGINT, history_events BIGINT, deliveries BIGINT, version TEXT, tags TEXT, request_key TEXT, events_buffered BIGINT, events_awaited TEXT); WHEN 'insert_history' THEN INSERT INTO history SELECT * FROM json_populate_recordset(NULL::history, given); WHEN 'insert_messages' THEN INSERT INTO inbox SELECT * FROM json_populate_recordset(NULL::inbox, given); WHEN 'insert_arrivals' THEN -- for other nodes, perhaps; the table numbers them INSERT INTO arrival (partition, instance_id, execution_id, event) SELECT partition, instance_id, execution_id, event FROM json_populate_recordset(NULL::arrival, given); WHEN 'insert_activities' THEN INSERT INTO activity SELECT * FROM json_populate_recordset(NULL::activity, given); WHEN 'insert_timers' THEN INSERT INTO timer SELECT * FROM json_populate_recordset(NULL::timer, given); WHEN 'insert_children' THEN INSERT INTO child SELECT * FROM json_populate_recordset(NULL::child, given); WHEN 'insert_operation_keys' THEN INSERT INTO operation_key SELECT * FROM json_populate_recordset(NULL::operation_key, given); END CASE; IF kinds[number] <> 'remove_history' THEN GET DIAGNOSTICS found = ROW_COUNT; END IF; IF found <> counts[number] THEN RAISE EXCEPTION '% finds % rows instead of %', kinds[number], found, counts[number] USING ERRCODE = 'HF002', CONSTRAINT = kinds[number], DETAIL = found; END IF; END LOOP; -- The lease would be over soon after so long a commit. IF clock_timestamp() > began + lease_s / 3 * interval '1 second' THEN UPDATE node SET lease_until = clock_timestamp() + lease_s * interval '1 second' WHERE node_id = writer AND incarnation = its_incarnation; END IF; END 
function checked_payload(payload jsonb) i u  BEGIN IF octet_length(payload::text) > 4194304 THEN RAISE EXCEPTION 'the payload takes % bytes as JSON; the limit is 4194304', octet_length(payload::text) USING ERRCODE = 'invalid_parameter_value'; END IF; RETURN payload::text; END 
function checked_tags(tags jsonb) i u  BEGIN IF jsonb_typeof(tags) <> 'object' OR ( SELECT count(*) > 64 OR coalesce(bool_or( jsonb_typeof(tag.value) <> 'string' OR length(tag.value #>> '{}') > 1000 OR length(tag.key) NOT BETWEEN 1 AND 1000), false) FROM jsonb_each(CASE jsonb_typeof(tags) WHEN 'object' THEN tags ELSE '{}' END) AS tag ) THEN RAISE EXCEPTION 'the tags must be a JSON object of at most 64 texts, of up to 1000 characters each' USING ERRCODE = 'invalid_parameter_value'; END IF; RETURN tags; END 
function checked_text(what text, value text, forbidden text DEFAULT ''::text) i u  BEGIN IF value IS NULL OR length(value) NOT BETWEEN 1 AND 256 OR value ~ ('[[:cntrl:]' || forbidden || ']') THEN RAISE EXCEPTION '% is %; it must have 1 to 256 printable characters, and none of %', what, coalesce(quote_literal(left(value, 60)), 'NULL'), coalesce(nullif(forbidden, ''), 'those that control') USING ERRCODE = 'invalid_parameter_value'; END IF; RETURN value; END 
function complete_activity(crc bigint, of_instance text, of_execution text, its_sequence bigint, its_attempt bigint, report text) v u  DECLARE its_partition CONSTANT INTEGER := crc % (SELECT partition_count FROM hub); BEGIN PERFORM pg_catalog.set_config('idle_in_transaction_session_timeout', '5000', true); PERFORM FROM activity WHERE partition = its_partition AND execution_id = of_execution AND sequence = its_sequence AND attempt = its_attempt FOR UPDATE; IF NOT FOUND THEN RETURN; END IF; RETURN QUERY SELECT false, arrival.partition, arrival.instance_id, arrival.execution_id, arrival.event, arrival_id FROM arrival WHERE partition = its_partition AND instance_id = of_instance AND execution_id = of_execution AND starts_with(arrival.event, format('{"type":"ActivityReported","sequence":%s,"attempt":0,', its_sequence)) LIMIT 1; IF NOT FOUND THEN RETURN QUERY INSERT INTO arrival (partition, instance_id, execution_id, event) VALUES (its_partition, of_instance, of_execution, report) RETURNING true, arrival.partition, arrival.instance_id, arrival.execution_id, arrival.event, arrival_id; END IF; END 
function crc32_of(id text) s u  DECLARE changes CONSTANT BIGINT[] := ARRAY[ 0, 498536548, 997073096, 651767980, 1994146192, 1802195444, 1303535960, 1342533948, 3988292384, 4027552580, 3604390888, 3412177804, 2607071920, 2262029012, 2685067896, 3183342108]; bytes CONSTANT BYTEA := convert_to(id, 'UTF8'); crc BIGINT := 4294967295; BEGIN FOR position IN 0 .. length(bytes) - 1 LOOP crc := crc # get_byte(bytes, position); crc := (crc >> 4) # changes[(crc & 15)::int + 1]; crc := (crc >> 4) # changes[(crc & 15)::int + 1]; END LOOP; RETURN crc # 4294967295; END 
function instant(at timestamp with time zone) s u  BEGIN IF at NOT BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-31 00:00:00+00' THEN RAISE EXCEPTION '% is beyond the calendar', at USING ERRCODE = 'datetime_field_overflow'; END IF; RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'); END 
function is_json(record text) i u  BEGIN RETURN record IS NULL OR record::json IS NOT NULL; EXCEPTION WHEN OTHERS THEN RETURN false; END 
function json_or_null(record text) i u  BEGIN RETURN record::jsonb; EXCEPTION WHEN OTHERS THEN RETURN NULL; END 
function raise_event(instance_id text, name text, data jsonb DEFAULT NULL::jsonb, key text DEFAULT NULL::text, notify boolean DEFAULT true) v u  BEGIN IF instance_id LIKE '@%' THEN RAISE EXCEPTION '% is an entity; it can be signalled', instance_id USING ERRCODE = 'invalid_parameter_value'; END IF; PERFORM send_message(checked_text('the instance id', instance_id, '/\\#?'), jsonb_build_object( 'type', 'EventRaised', 'timestamp', instant(clock_timestamp()), 'name', checked_text('the name of the event', name), 'input', coalesce(checked_payload(data), 'null'), 'key', CASE WHEN key IS NOT NULL THEN checked_text('the key', key) END ), notify); END 
function send_message(receiver text, message jsonb, notify boolean) v u  DECLARE sent_to INTEGER; BEGIN INSERT INTO arrival (partition, instance_id, event) SELECT crc32_of(receiver) % partition_count, receiver, jsonb_build_object('v', 1, 'event', jsonb_strip_nulls(message))::text FROM hub RETURNING arrival.partition INTO STRICT sent_to; IF notify THEN PERFORM pg_notify( concat('holdfast_', lpad(to_hex(crc32_of(current_schema())), 8, '0')), concat('arrivals ', sent_to)); END IF; END 
function signal_entity(entity_name text, entity_key text, operation text, input jsonb DEFAULT NULL::jsonb, key text DEFAULT NULL::text, due timestamp with time zone DEFAULT NULL::timestamp with time zone, notify boolean DEFAULT true) v u  DECLARE receiver CONSTANT TEXT := checked_text('the entity id', concat( '@', lower(checked_text('the entity name', entity_name, '@/\\#?')), '@', checked_text('the entity key', entity_key, '/\\#?')), '/\\#?'); BEGIN IF operation LIKE '\_%' THEN RAISE EXCEPTION '% is no operation of an entity', operation USING ERRCODE = 'invalid_parameter_value'; END IF; PERFORM send_message(receiver, jsonb_build_object( 'type', 'EntityOperationSignaled', 'timestamp', instant(clock_timestamp()), 'request_id', coalesce(key, replace(gen_random_uuid()::text, '-', '')), 'target_instance_id', receiver, 'operation', checked_text('the operation', operation), 'input', checked_payload(input), 'due_at', instant(due), 'key', CASE WHEN key IS NOT NULL THEN checked_text('the key', key) END ), notify); END 
function start_orchestration(name text, input jsonb DEFAULT NULL::jsonb, instance_id text DEFAULT NULL::text, version text DEFAULT NULL::text, tags jsonb DEFAULT NULL::jsonb, start_at timestamp with time zone DEFAULT NULL::timestamp with time zone, run_timeout interval DEFAULT NULL::interval, replace_ended boolean DEFAULT false, notify boolean DEFAULT true) v u  DECLARE now CONSTANT TIMESTAMPTZ := clock_timestamp(); made CONSTANT TEXT := replace(gen_random_uuid()::text, '-', ''); started CONSTANT TEXT := checked_text( 'the instance id', coalesce(instance_id, replace(gen_random_uuid()::text, '-', '')), '/\\#?'); BEGIN IF started LIKE '@%' THEN RAISE EXCEPTION 'the instance id % starts with "@", which is kept for entities', started USING ERRCODE = 'invalid_parameter_value'; ELSIF run_timeout <= INTERVAL '0' THEN RAISE EXCEPTION 'run_timeout must be more than zero' USING ERRCODE = 'invalid_parameter_value'; ELSIF length(version) > 100 THEN RAISE EXCEPTION 'the version has more than 100 characters' USING ERRCODE = 'invalid_parameter_value'; END IF; PERFORM send_message(started, jsonb_build_object( 'type', 'ExecutionStarted', 'timestamp', instant(now), 'name', checked_text('the name of the orchestrator', name), 'instance_id', started, 'execution_id', concat('t', lpad(to_hex((extract(epoch FROM now) * 1000000)::bigint), 13, '0'), '-', made), 'input', checked_payload(input), 'version', CASE WHEN version IS NOT NULL THEN checked_text('the version', version) END, 'tags', checked_tags(tags), 'start_at', instant(start_at), 'expires_at', instant(least(greatest(now, start_at) + run_timeout, '9999-12-31 00:00:00+00')), 'id_rule', CASE WHEN replace_ended THEN 'replace' ELSE 'once' END ), notify); RETURN started; END 
