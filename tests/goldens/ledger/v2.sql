BEGIN TRANSACTION;
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    started_at REAL NOT NULL,
    ended_at REAL,
    outcome TEXT NOT NULL DEFAULT 'running'
        CHECK (outcome IN ('running', 'scanned', 'repeated', 'unchanged', 'failed', 'died', 'interrupted', 'returned')),
    reason TEXT,
    worker TEXT,
    requests INTEGER NOT NULL DEFAULT 0,
    bytes_read INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0
, run_id INTEGER REFERENCES runs (id));
INSERT INTO "attempts" VALUES(1,1,1000.0,1010.0,'scanned',NULL,NULL,7,0,0.0,1);
INSERT INTO "attempts" VALUES(2,2,1001.0,1002.0,'failed',NULL,NULL,1,0,0.0,1);
INSERT INTO "attempts" VALUES(3,4,1003.0,NULL,'running',NULL,NULL,0,0,0.0,1);
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    repo_id TEXT NOT NULL,
    wanted TEXT NOT NULL DEFAULT '',          -- branch, tag or commit asked for; '' is the head of main
    state TEXT NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'claimed', 'done', 'failed')),
    rank INTEGER NOT NULL DEFAULT 0,          -- lower is scanned earlier
    due_at REAL NOT NULL DEFAULT 0,           -- Unix time before which a due job is not claimed
    size_bytes INTEGER,                       -- of the weights, as the listing says; NULL when unknown
    family TEXT,                              -- the declared base, as the listing says
    listed TEXT,                              -- head commit, as the listing says
    described TEXT NOT NULL DEFAULT '{}',     -- the rest of the listing, JSON
    tries INTEGER NOT NULL DEFAULT 0,         -- transient failures since the last success or retry
    deaths INTEGER NOT NULL DEFAULT 0,        -- workers that this job has ended
    alone INTEGER NOT NULL DEFAULT 0,
    reason TEXT,                              -- why it failed, a sentence
    cause TEXT,                               -- the name of the error
    result_id INTEGER REFERENCES results (id), run_id INTEGER REFERENCES runs (id), settled_in INTEGER REFERENCES runs (id),
    UNIQUE (repo_id, wanted)
);
INSERT INTO "jobs" VALUES(1,'org/done','','done',0,0.0,100,'org/base','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','{}',0,0,0,NULL,NULL,1,1,1);
INSERT INTO "jobs" VALUES(2,'org/failed','','failed',0,0.0,200,'org/base','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','{}',0,0,0,'It is gated.','RepoGated',NULL,1,1);
INSERT INTO "jobs" VALUES(3,'org/due','','due',0,0.0,300,'org/base','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','{}',0,0,0,NULL,NULL,NULL,1,NULL);
INSERT INTO "jobs" VALUES(4,'org/claimed','','claimed',0,0.0,400,'org/base','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','{}',0,0,0,NULL,NULL,NULL,1,NULL);
CREATE TABLE reports (
    result_id INTEGER PRIMARY KEY REFERENCES results (id),
    body BLOB NOT NULL                        -- report JSON, compressed by zlib
);
INSERT INTO "reports" VALUES(1,X'789CAB562A53B25230AC05000A63023E');
CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    repo_id TEXT NOT NULL,
    revision TEXT NOT NULL,
    pins TEXT NOT NULL,                       -- repository -> commit, JSON with sorted keys
    rules TEXT NOT NULL,                      -- digest of rule book and threshold profile
    tool TEXT NOT NULL,
    ending TEXT NOT NULL,
    problem TEXT,
    outcome TEXT NOT NULL,
    score REAL NOT NULL,
    false_positive_rate REAL,
    relation TEXT NOT NULL,
    status TEXT NOT NULL,
    base_repo TEXT,
    base_revision TEXT,
    parameters_compared INTEGER NOT NULL,
    parameters_total INTEGER NOT NULL,
    bytes_read INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    seconds REAL NOT NULL,
    created_at TEXT NOT NULL,
    digest TEXT NOT NULL,
    findings TEXT NOT NULL, run_id INTEGER REFERENCES runs (id),                   -- JSON list of {rule_id, severity, title, fingerprint}
    UNIQUE (repo_id, revision, pins, rules, tool)
);
INSERT INTO "results" VALUES(1,1,'org/done','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','{"org/base": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "org/done": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}','r1','1','concluded',NULL,'review',0.7,0.01,'finetune','verified','org/base','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',90,100,5000,7,1.5,'2026-11-20T00:00:00Z','d','[{"rule_id": "HA201", "severity": "high", "title": "Rows", "fingerprint": "ffffffffffffffff"}]',1);
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
INSERT INTO "runs" VALUES(1,'{"author": "org"}','local','r1','1',1000.0,1010.0,'{"review": 1}');
CREATE INDEX jobs_family ON jobs (family);
CREATE INDEX attempts_job ON attempts (job_id);
CREATE INDEX attempts_running ON attempts (outcome) WHERE outcome = 'running';
CREATE INDEX results_job ON results (job_id);
CREATE INDEX attempts_run ON attempts (run_id);
CREATE INDEX jobs_next ON jobs (run_id, state, rank);
COMMIT;
PRAGMA application_id = 1213547073;
PRAGMA user_version = 2;
