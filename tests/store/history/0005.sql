-- What a raflow at revision 0005 had recorded. Never changed: later ones must be able to read it.
INSERT INTO flows (name) VALUES ('etl');
INSERT INTO flow_versions (flow, fingerprint, version, description, entrypoint, source, parameter_schema, created_at)
VALUES ('etl', 'f1', '2', 'Loads.', 'etl.py:etl', 'def etl(): ...', '{"properties":{"day":{"type":"string"}}}', 1.5);
INSERT INTO flow_runs (number, id, seq, flow, fingerprint, name, state, state_at, state_message, state_reason,
  parameters, trigger, backend, created_at, started_at, ended_at, tags, host, pid, versions,
  error_type, error_message, error_traceback, incarnation, inputs_type, inputs_size, inputs_preview, inputs_length,
  inputs_truth, inputs_serializer, inputs_inline, inputs_url, inputs_digest, rerun_of, rerun_from)
VALUES (7, '0198-run', 3, 'etl', 'f1', 'calm-otter', 'Failed', 9.25, 'extract-0[1] failed', '',
  '{"day":"2026-01-01"}', 'manual', 'ray', 1.5, 2.5, 9.25, '["nightly"]', 'node-a', 42, '{"ray":"2.60.0"}',
  'builtins.ValueError', 'no such day', 'Traceback: ...', 2, 'builtins.dict', 60, '{"day": "2026-01-01"}', 1,
  TRUE, 'json', BYTES('7b7d'), '', 'abc', '0197-run', '["load-0","total"]');
INSERT INTO graph_blocks (flow_run, seq, first_node, last_node, content)
VALUES (7, 1, 0, 1, BYTES('28b52ffd60d4010d0c00b6994821406bdb06f657ab773bba4de8f9bc6cd191de8625c02fc175c33ba4f75414c505013f003d0040009dc7c51bb91ccf68d9579c2fb037e76a298ce3e20740a7e47ed0e30f80c6a4bae29c51c67181e0a13857ca3171decbb1f4e6bca962eb889c2fa634d68637018b5b6f123bd69475318576f3f8d63425d7d06eae63c49a240af77191c05db714e70c9d2c5d043f709806625b97b2c7f7b737e7ab0ab98d49a54baee30b4ca29ddc0d254b59a79421b5e36bce9975d2d586ceb5c13462d6c9ba9a521edf8140ce194d516fce17d6cda56340e240ce19668b2ec70371246871abb9464201ef3d75dcca6e955c400e6c37d13b93eaacad4b72368eef8bb6f2104d38fbf88e2392283dbe2780487422a59dcae9352c45ba28bd1c1f5f4060807090f0f324201014e330f39a6cffaa2825a0e502a8a0b9b73329637b633f03036e1c68ae6d033a8e31900cbe0f14b60d91f49b8903109eb0dc1e04379d4350eb011c0da8c08c28d47a1a5e8721c2dab58706448e13f041a0f126ebb6f3c8aa19'));
INSERT INTO task_runs (flow_run, node, map_index, seq, task, label, state, state_at, state_message, state_reason,
  attempts, created_at, started_at, ended_at, result_type, result_size, result_preview, result_length,
  result_truth, result_serializer, result_url, result_digest)
VALUES (7, 1, 0, 2, 'extract', 'extract-0[0]', 'Recovered', 8.5, '', '', 2, 2.5, 6.5, 8.5,
  'builtins.list', 120, '[1, 2]', 2, TRUE, 'json', 'file:///results/1', 'abc');
INSERT INTO task_run_blocks (flow_run, number, first_node, last_node, first_item, last_item, size, spans, content)
VALUES (7, 0, 0, 1, -1, 1, 2, BYTES('28b52ffd2016b100005b302c312c312c2d312c302c312c312c312c312c325d'), BYTES('28b52ffd604e00bd0700a691382a8029cd01f3104dd0047a201ef8b47b5adbeec783646ba2498bfa806823b616b8dbb43a64a89901b98a2d2d002c002b004fcad3d317b63ca38b4c7f5996db4035fa8e552a8e84b478f9794cac927188a0829f9663f4a6dc064b24090041d0420c83db88dfdcf86e947da2e81f20b0e5751c8cf88cc6422d53c73c4be9839a3a7db5bc116ffa4d3d3d058ed15cf0b74a7a753765f0c4fc45a59bce0717333e0a5f6d7cc617c696278575aef41dcbf12d69194246014d3db1d6388435b2c7a382a24020814006029289d6fcc4c8d9a950c749fab07e626c79c26d1cf45bb3d338df7e0600332506515b5cbca9c41cdc3d07871205'));
INSERT INTO attempts (flow_run, node, map_index, number, outcome, submitted_at, started_at, ended_at, cpu_seconds,
  peak_memory, pid, host, node_id, message, memory)
VALUES (7, 1, 0, 2, 'completed', 6.25, 6.5, 8.5, 1.75, 1000000, 43, 'node-b', 'b', '', 4096);
INSERT INTO attempts (flow_run, node, map_index, number, outcome, submitted_at, started_at, ended_at, cpu_seconds,
  peak_memory, pid, host, node_id, message, cause, signal, exit_code, cause_facts)
VALUES (7, 1, 0, 1, 'crashed', 3.0, 3.5, 5.25, 0.5, 900000, 41, 'node-b', 'b', 'its process was killed', 'signal', 9, NULL,
  '{"host":"node-b","pid":41,"node_id":"b","peak_memory":900000,"facts":{"by":"kernel"}}');
INSERT INTO states (flow_run, node, map_index, number, state, state_at, state_message, state_reason)
VALUES (7, -1, -1, 0, 'Pending', 1.5, '', '');
INSERT INTO states (flow_run, node, map_index, number, state, state_at, state_message, state_reason)
VALUES (7, 1, 0, 5, 'AwaitingRetry', 5.5, '', 'retry 1 of 3 in 1 s');
INSERT INTO log_segments (flow_run, node, map_index, number, attempt, file, "offset", length, lines, first_at,
  last_at, level)
VALUES (7, 1, 0, 0, 2, '0198-run.log', 10, 20, 3, 6.5, 7.5, 30);
INSERT INTO applied_batches (flow_run_id, seq) VALUES ('0198-run', 3);
INSERT INTO task_paces (flow, fingerprint, task, seconds, bytes)
VALUES ('etl', 'f1', 'extract', 0.25, 28.5);
INSERT INTO flow_runs (number, id, seq, flow, fingerprint, name, state, state_at, state_message, state_reason,
  parameters, trigger, backend, created_at, started_at, tags, host, pid, versions, incarnation)
VALUES (6, '0197-run', 2, 'etl', 'f1', 'patient-owl', 'AwaitingInput', 0.75, '', 'somebody must look at the numbers',
  '{}', 'manual', 'ray', 0.25, 0.5, '[]', 'node-a', 40, '{}', 1);
INSERT INTO run_leases (flow_run, incarnation, host, pid, process_started, since, renewed_at, expires_at, token)
VALUES (6, 1, 'node-a', 40, 0.125, 0.25, 2.25, 12.25, '00ff');
INSERT INTO run_processes (flow_run, host, pid, started_at, role) VALUES (6, 'node-a', 40, 0.125, 'driver');
INSERT INTO run_requests (number, flow_run, kind, asked_by, asked_at, message, outcome)
VALUES (1, 6, 'pause', 'ann@node-a', 1.25, 'the table is locked', '');
INSERT INTO input_requests (flow_run, number, title, form, asked_at, expires_at, default_answer, assignees, answer,
  answered_by, answered_at)
VALUES (6, 0, 'Approval', '{"type":"boolean"}', 0.625, 9.5, BYTES('66616c7365'), '["ann"]', BYTES('74727565'), 'ann', 0.6875);
INSERT INTO input_requests (flow_run, number, title, form, asked_at, assignees, answered_by)
VALUES (6, 1, 'Amount', '{"type":"integer"}', 0.75, '[]', '');
INSERT INTO limits (name, slots, per_seconds) VALUES ('warehouse', 3, 0);
INSERT INTO limits (name, slots, per_seconds) VALUES ('api', 10, 60);
INSERT INTO slot_leases (name, ticket, holder, flow_run_id, label, amount, priority, asked_at, granted_at, expires_at)
VALUES ('warehouse', 1, '0197-run/1/0/1', '0197-run', 'extract-0[0] of run 0197-run', 1, 5, 0.5, 0.5625, 99999999999);
INSERT INTO slot_leases (name, ticket, holder, flow_run_id, label, amount, priority, asked_at, granted_at, expires_at)
VALUES ('warehouse', 2, '0197-run/1/1/1', '0197-run', 'extract-0[1] of run 0197-run', 3, 0, 0.5, NULL, 99999999999);
INSERT INTO slot_leases (name, ticket, holder, flow_run_id, label, amount, priority, asked_at, granted_at, expires_at)
VALUES ('api', 1, '', '0197-run', 'extract-0[0] of run 0197-run', 1, 0, 0.5, 0.5625, 10.5);
INSERT INTO cache_entries (key, flow_run_id, node, map_index, task, created_at, expires_at, result_type, result_size,
  result_preview, result_length, result_truth, result_serializer, result_url, result_digest)
VALUES ('k1', '0198-run', 1, 0, 'extract', 8.5, 99999999999, 'builtins.list', 120, '[1, 2]', 2, TRUE, 'json',
  'file:///results/1', 'abc');
INSERT INTO cache_claims (key, holder, flow_run_id, label, since, expires_at)
VALUES ('k2', '0197-run/1/0/1', '0197-run', 'extract-0[0] of run 0197-run', 0.5, 99999999999);
