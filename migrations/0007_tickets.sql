-- The SHA-256 of a job ticket's text as it was placed: only an unchanged one is replaced by that of the next version.
ALTER TABLE deliveries ADD COLUMN sha256 TEXT NOT NULL DEFAULT '';
