-- Hooks, webhooks, job tickets, batches, the way back, retention, pull.

-- content: kept, purging (to be unlinked), purged. told_pending: the client was told "scan pending".
ALTER TABLE uploads ADD COLUMN content TEXT NOT NULL DEFAULT 'kept';
ALTER TABLE uploads ADD COLUMN told_pending BIGINT NOT NULL DEFAULT 0;
CREATE INDEX uploads_purging ON uploads (id) WHERE content = 'purging';
-- For XJDF, taken before the release where the configuration asks for it.
ALTER TABLE uploads ADD COLUMN md5 TEXT NOT NULL DEFAULT '';

-- batch: a job ticket's batch, or empty. delivered: when the file was placed. waited: when delivery.waiting was told.
ALTER TABLE deliveries ADD COLUMN batch TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN delivered BIGINT NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN waited BIGINT NOT NULL DEFAULT 0;
CREATE INDEX deliveries_untaken ON deliveries (delivered) WHERE state = 'done' AND taken = 0 AND consumer = 'mirror';

-- batch: what a mail about several files tells of. upload_id: what a mail about one file tells of.
ALTER TABLE mails ADD COLUMN batch TEXT NOT NULL DEFAULT '';
ALTER TABLE mails ADD COLUMN upload_id TEXT NOT NULL DEFAULT '';

-- published: when the folders for staff were made on the share.
ALTER TABLE projects ADD COLUMN published BIGINT NOT NULL DEFAULT 0;

-- Up to which event everything that follows has been written down.
INSERT INTO counters (name, value) SELECT 'handed_on', COALESCE(MAX(seq), 0) FROM events;

-- Work that one server does at a time.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    until BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);

-- Hooks and webhooks: one row for each event and target. payload is the same at every attempt.
CREATE TABLE hook_runs (
    id TEXT NOT NULL PRIMARY KEY,
    event_seq BIGINT NOT NULL,
    event TEXT NOT NULL,
    consumer TEXT NOT NULL,
    target TEXT NOT NULL,
    upload_id TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL,
    open BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_try BIGINT NOT NULL,
    last_error TEXT NOT NULL,
    output TEXT NOT NULL,
    ms BIGINT NOT NULL,
    lease_owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    UNIQUE (event_seq, consumer, target)
);
CREATE INDEX hook_runs_due ON hook_runs (open, consumer, target, next_try);

-- Files of one project that came together; direction: in (from the customer) or out (from staff).
CREATE TABLE batches (
    id TEXT NOT NULL PRIMARY KEY,
    direction TEXT NOT NULL,
    client_no TEXT NOT NULL,
    project_no TEXT NOT NULL,
    username TEXT NOT NULL,
    node TEXT NOT NULL,
    state TEXT NOT NULL,
    last_file BIGINT NOT NULL,
    closed BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE UNIQUE INDEX batches_open ON batches (project_no, direction) WHERE state = 'open';

CREATE TABLE batch_files (
    upload_id TEXT NOT NULL PRIMARY KEY,
    batch TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX batch_files_batch ON batch_files (batch);

-- What staff put into the hotfolder and the customer sees. path stands below the area, as the customer sees it.
CREATE TABLE published (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL,
    area BIGINT NOT NULL,
    path TEXT NOT NULL,
    size BIGINT NOT NULL,
    mtime BIGINT NOT NULL,
    upload_id TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    UNIQUE (project_id, area, path)
);

-- Removals that wait for an operator. confirmed: they may follow.
CREATE TABLE publish_holds (
    id TEXT NOT NULL PRIMARY KEY,
    project_no TEXT NOT NULL,
    folder TEXT NOT NULL,
    missing BIGINT NOT NULL,
    total BIGINT NOT NULL,
    confirmed BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
