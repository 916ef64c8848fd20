-- What a raflow at revision 0001 had recorded. Never changed: later ones must be able to read it.
INSERT INTO flows (name) VALUES ('etl');
INSERT INTO flow_versions (flow, fingerprint, version, description, entrypoint, source, parameter_schema, created_at)
VALUES ('etl', 'f1', '2', 'Loads.', 'etl.py:etl', 'def etl(): ...', '{"properties":{"day":{"type":"string"}}}', 1.5);
INSERT INTO flow_runs (number, id, seq, flow, fingerprint, name, state, state_at, state_message, state_reason,
  parameters, trigger, backend, created_at, started_at, ended_at, tags, host, pid, versions,
  error_type, error_message, error_traceback)
VALUES (7, '0198-run', 3, 'etl', 'f1', 'calm-otter', 'Failed', 9.25, 'extract-0[1] failed', '',
  '{"day":"2026-01-01"}', 'manual', 'ray', 1.5, 2.5, 9.25, '["nightly"]', 'node-a', 42, '{"ray":"2.60.0"}',
  'builtins.ValueError', 'no such day', 'Traceback: ...');
INSERT INTO nodes (flow_run, id, seq, key, kind, name, label, line, length, trigger_rule, resources)
VALUES (7, 0, 1, 'days-0', 'task', 'days', '', 'etl.py:9', NULL, 'all_success', NULL);
INSERT INTO nodes (flow_run, id, seq, key, kind, name, label, line, length, trigger_rule, resources)
VALUES (7, 1, 1, 'extract-0', 'map', 'extract', '', 'etl.py:10', 2, 'all_done',
  '{"num_cpus":2.0,"num_gpus":0.0,"memory":1024,"custom":{"disk":1.0},"accelerator_type":null,"label_selector":{},"scheduling_strategy":"SPREAD","runtime_env":null}');
INSERT INTO edges (flow_run, target, source, kind, parameter, source_item, target_item, allow_failure)
VALUES (7, 1, 0, 'item', 'day', -1, -1, TRUE);
INSERT INTO task_runs (flow_run, node, map_index, seq, task, label, state, state_at, state_message, state_reason,
  attempts, created_at, started_at, ended_at, result_type, result_size, result_preview, result_length,
  result_truth, result_serializer, result_url, result_digest)
VALUES (7, 1, 0, 2, 'extract', 'extract-0[0]', 'Recovered', 8.5, '', '', 2, 2.5, 6.5, 8.5,
  'builtins.list', 120, '[1, 2]', 2, TRUE, 'json', 'file:///results/1', 'abc');
INSERT INTO attempts (flow_run, node, map_index, number, outcome, submitted_at, started_at, ended_at, cpu_seconds,
  peak_memory, pid, host, node_id, message)
VALUES (7, 1, 0, 2, 'completed', 6.25, 6.5, 8.5, 1.75, 1000000, 43, 'node-b', 'b', '');
INSERT INTO states (flow_run, node, map_index, number, state, state_at, state_message, state_reason)
VALUES (7, -1, -1, 0, 'Pending', 1.5, '', '');
INSERT INTO states (flow_run, node, map_index, number, state, state_at, state_message, state_reason)
VALUES (7, 1, 0, 5, 'AwaitingRetry', 5.5, '', 'retry 1 of 3 in 1 s');
INSERT INTO log_segments (flow_run, node, map_index, number, attempt, file, "offset", length, lines, first_at,
  last_at, level)
VALUES (7, 1, 0, 0, 2, '0198-run.log', 10, 20, 3, 6.5, 7.5, 30);
INSERT INTO applied_batches (flow_run_id, seq) VALUES ('0198-run', 3);
