CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    repo_id TEXT NOT NULL,
    revision TEXT NOT NULL,               -- '' is the head of main
    cause TEXT NOT NULL,                  -- commit:<hash> or comment:<id>
    thread INTEGER,                       -- where to answer; NULL when nobody asked in words
    state TEXT NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'running', 'done', 'failed')),
    tries INTEGER NOT NULL DEFAULT 0,     -- attempts that ended without a result
    received_at REAL NOT NULL,            -- Unix time, as all times here
    due_at REAL NOT NULL,
    ended_at REAL,
    note TEXT,                            -- what came of it, one sentence
    UNIQUE (repo_id, cause)
);
CREATE INDEX jobs_due ON jobs (state, due_at, id);
CREATE INDEX jobs_of_repo ON jobs (repo_id, state);
