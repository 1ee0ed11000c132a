-- Runs: one invocation over one selection, so that an interrupted one can go on and a trend can be drawn.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    selection TEXT NOT NULL,                  -- what was asked for, JSON with sorted keys
    engine TEXT NOT NULL,
    rules TEXT NOT NULL,
    tool TEXT NOT NULL,
    started_at REAL NOT NULL,                 -- Unix time
    ended_at REAL,                            -- NULL while it runs, and for ever when its driver was killed
    counts TEXT NOT NULL DEFAULT '{}'         -- jobs by outcome when it ended, JSON
);
ALTER TABLE attempts ADD COLUMN run_id INTEGER REFERENCES runs (id);
ALTER TABLE jobs ADD COLUMN run_id INTEGER REFERENCES runs (id);      -- the last run that selected the job
ALTER TABLE jobs ADD COLUMN settled_in INTEGER REFERENCES runs (id);  -- the last run that finished with it
ALTER TABLE results ADD COLUMN run_id INTEGER REFERENCES runs (id);
CREATE INDEX attempts_run ON attempts (run_id);
DROP INDEX jobs_next;
CREATE INDEX jobs_next ON jobs (run_id, state, rank);

-- What was scanned before runs were kept becomes one run.
INSERT INTO runs (selection, engine, rules, tool, started_at, ended_at)
SELECT '{}', 'unknown', '', '', MIN(started_at), MAX(COALESCE(ended_at, started_at)) FROM attempts HAVING COUNT(*) > 0;
UPDATE attempts SET run_id = 1;
UPDATE results SET run_id = 1;
UPDATE jobs SET run_id = 1 WHERE EXISTS (SELECT 1 FROM runs);
UPDATE jobs SET settled_in = 1 WHERE state IN ('done', 'failed') AND EXISTS (SELECT 1 FROM runs);
