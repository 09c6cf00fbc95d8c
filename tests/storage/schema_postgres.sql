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
function checked_payload(payload jsonb) i u  BEGIN IF octet_length(payload::text) > 4194304 THEN RAISE EXCEPTION 'the payload takes % bytes as JSON; the limit is 4194304', octet_length(payload::text) USING ERRCODE = 'invalid_parameter_value'; END IF; RETURN payload::text; END 
function checked_tags(tags jsonb) i u  BEGIN IF jsonb_typeof(tags) <> 'object' OR ( SELECT count(*) > 64 OR coalesce(bool_or( jsonb_typeof(tag.value) <> 'string' OR length(tag.value #>> '{}') > 1000 OR length(tag.key) NOT BETWEEN 1 AND 1000), false) FROM jsonb_each(CASE jsonb_typeof(tags) WHEN 'object' THEN tags ELSE '{}' END) AS tag ) THEN RAISE EXCEPTION 'the tags must be a JSON object of at most 64 texts, of up to 1000 characters each' USING ERRCODE = 'invalid_parameter_value'; END IF; RETURN tags; END 
function checked_text(what text, value text, forbidden text DEFAULT ''::text) i u  BEGIN IF value IS NULL OR length(value) NOT BETWEEN 1 AND 256 OR value ~ ('[[:cntrl:]' || forbidden || ']') THEN RAISE EXCEPTION '% is %; it must have 1 to 256 printable characters, and none of %', what, coalesce(quote_literal(left(value, 60)), 'NULL'), coalesce(nullif(forbidden, ''), 'those that control') USING ERRCODE = 'invalid_parameter_value'; END IF; RETURN value; END 
function crc32_of(id text) s u  DECLARE changes CONSTANT BIGINT[] := ARRAY[ 0, 498536548, 997073096, 651767980, 1994146192, 1802195444, 1303535960, 1342533948, 3988292384, 4027552580, 3604390888, 3412177804, 2607071920, 2262029012, 2685067896, 3183342108]; bytes CONSTANT BYTEA := convert_to(id, 'UTF8'); crc BIGINT := 4294967295; BEGIN FOR position IN 0 .. length(bytes) - 1 LOOP crc := crc # get_byte(bytes, position); crc := (crc >> 4) # changes[(crc & 15)::int + 1]; crc := (crc >> 4) # changes[(crc & 15)::int + 1]; END LOOP; RETURN crc # 4294967295; END 
function instant(at timestamp with time zone) i u  BEGIN IF at NOT BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-31 00:00:00+00' THEN RAISE EXCEPTION '% is beyond the calendar', at USING ERRCODE = 'datetime_field_overflow'; END IF; RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'); END 
function is_json(record text) i u  BEGIN RETURN record IS NULL OR record::json IS NOT NULL; EXCEPTION WHEN OTHERS THEN RETURN false; END 
function json_or_null(record text) i u  BEGIN RETURN record::jsonb; EXCEPTION WHEN OTHERS THEN RETURN NULL; END 
function raise_event(instance_id text, name text, data jsonb DEFAULT NULL::jsonb, key text DEFAULT NULL::text, notify boolean DEFAULT true) v u  BEGIN IF instance_id LIKE '@%' THEN RAISE EXCEPTION '% is an entity; it can be signalled', instance_id USING ERRCODE = 'invalid_parameter_value'; END IF; PERFORM send_message(checked_text('the instance id', instance_id, '/\\#?'), jsonb_build_object( 'type', 'EventRaised', 'timestamp', instant(clock_timestamp()), 'name', checked_text('the name of the event', name), 'input', coalesce(checked_payload(data), 'null'), 'key', CASE WHEN key IS NOT NULL THEN checked_text('the key', key) END ), notify); END 
function send_message(receiver text, message jsonb, notify boolean) v u  DECLARE sent_to INTEGER; BEGIN INSERT INTO arrival (partition, instance_id, event) SELECT crc32_of(receiver) % partition_count, receiver, jsonb_build_object('v', 1, 'event', jsonb_strip_nulls(message))::text FROM hub RETURNING arrival.partition INTO STRICT sent_to; IF notify THEN PERFORM pg_notify( concat('holdfast_', lpad(to_hex(crc32_of(current_schema())), 8, '0')), concat('arrivals ', sent_to)); END IF; END 
function signal_entity(entity_name text, entity_key text, operation text, input jsonb DEFAULT NULL::jsonb, key text DEFAULT NULL::text, due timestamp with time zone DEFAULT NULL::timestamp with time zone, notify boolean DEFAULT true) v u  DECLARE receiver CONSTANT TEXT := checked_text('the entity id', concat( '@', lower(checked_text('the entity name', entity_name, '@/\\#?')), '@', checked_text('the entity key', entity_key, '/\\#?')), '/\\#?'); BEGIN IF operation LIKE '\_%' THEN RAISE EXCEPTION '% is no operation of an entity', operation USING ERRCODE = 'invalid_parameter_value'; END IF; PERFORM send_message(receiver, jsonb_build_object( 'type', 'EntityOperationSignaled', 'timestamp', instant(clock_timestamp()), 'request_id', coalesce(key, replace(gen_random_uuid()::text, '-', '')), 'target_instance_id', receiver, 'operation', checked_text('the operation', operation), 'input', checked_payload(input), 'due_at', instant(due), 'key', CASE WHEN key IS NOT NULL THEN checked_text('the key', key) END ), notify); END 
function start_orchestration(name text, input jsonb DEFAULT NULL::jsonb, instance_id text DEFAULT NULL::text, version text DEFAULT NULL::text, tags jsonb DEFAULT NULL::jsonb, start_at timestamp with time zone DEFAULT NULL::timestamp with time zone, run_timeout interval DEFAULT NULL::interval, replace_ended boolean DEFAULT false, notify boolean DEFAULT true) v u  DECLARE now CONSTANT TIMESTAMPTZ := clock_timestamp(); made CONSTANT TEXT := replace(gen_random_uuid()::text, '-', ''); started CONSTANT TEXT := checked_text( 'the instance id', coalesce(instance_id, replace(gen_random_uuid()::text, '-', '')), '/\\#?'); BEGIN IF started LIKE '@%' THEN RAISE EXCEPTION 'the instance id % starts with "@", which is kept for entities', started USING ERRCODE = 'invalid_parameter_value'; ELSIF run_timeout <= INTERVAL '0' THEN RAISE EXCEPTION 'run_timeout must be more than zero' USING ERRCODE = 'invalid_parameter_value'; ELSIF length(version) > 100 THEN RAISE EXCEPTION 'the version has more than 100 characters' USING ERRCODE = 'invalid_parameter_value'; END IF; PERFORM send_message(started, jsonb_build_object( 'type', 'ExecutionStarted', 'timestamp', instant(now), 'name', checked_text('the name of the orchestrator', name), 'instance_id', started, 'execution_id', concat('t', lpad(to_hex((extract(epoch FROM now) * 1000000)::bigint), 13, '0'), '-', made), 'input', checked_payload(input), 'version', CASE WHEN version IS NOT NULL THEN checked_text('the version', version) END, 'tags', checked_tags(tags), 'start_at', instant(start_at), 'expires_at', instant(least(greatest(now, start_at) + run_timeout, '9999-12-31 00:00:00+00')), 'id_rule', CASE WHEN replace_ended THEN 'replace' ELSE 'once' END ), notify); RETURN started; END 
