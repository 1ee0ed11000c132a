-- The number from which a run draws the rows that it samples: unpredictable to strangers, the same for all its workers.
ALTER TABLE runs ADD COLUMN salt INTEGER NOT NULL DEFAULT 0;
