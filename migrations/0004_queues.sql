-- What a long queue needs, so that taking its first costs the same however many wait behind it.

-- The oldest due run of a target, and whether an earlier one about the same upload is still open.
CREATE INDEX hook_runs_order ON hook_runs (consumer, target, event_seq) WHERE open = 1;
CREATE INDEX hook_runs_upload ON hook_runs (upload_id, consumer, target, event_seq) WHERE open = 1;

-- What was placed under a name last (on_conflict = "replace").
CREATE INDEX deliveries_placed ON deliveries (placed_name) WHERE state = 'done';
