-- What the bridge knows. Times are seconds since the epoch.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Arrivals already written down, by the other side's own identity.
CREATE TABLE seen (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;

CREATE TABLE conversation (
    id INTEGER PRIMARY KEY,
    room TEXT NOT NULL,
    root TEXT,                -- event id of the thread's root, once known
    latest TEXT,              -- newest event of the thread, for clients without threads
    title TEXT NOT NULL,
    speaker TEXT,             -- Matrix id of the last employee who answered outward
    created REAL NOT NULL
);
CREATE UNIQUE INDEX conversation_root ON conversation (root) WHERE root IS NOT NULL;

-- One thing on the other side. A conversation has 0..n of them; one of them may be in several conversations.
CREATE TABLE item (
    id INTEGER PRIMARY KEY,
    connector TEXT NOT NULL,
    remote TEXT NOT NULL,
    title TEXT NOT NULL,
    card TEXT,                -- JSON of how it stood last, and since when
    card_at REAL NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    UNIQUE (connector, remote)
);

CREATE TABLE conversation_item (
    conversation INTEGER NOT NULL REFERENCES conversation (id),
    item INTEGER NOT NULL REFERENCES item (id),
    scope TEXT NOT NULL,      -- in whose name (mailbox, project) this conversation speaks on the item
    card TEXT,                -- event that shows how the item stands
    PRIMARY KEY (item, conversation)
) WITHOUT ROWID;
CREATE INDEX conversation_item_conversation ON conversation_item (conversation);

-- Remote message ids, seen or only referred to, and the item they belong to.
CREATE TABLE reference (
    connector TEXT NOT NULL,
    remote TEXT NOT NULL,
    item INTEGER NOT NULL REFERENCES item (id),
    PRIMARY KEY (connector, remote)
) WITHOUT ROWID;

-- Who may speak on an item without being shown as a stranger.
CREATE TABLE participant (
    item INTEGER NOT NULL REFERENCES item (id),
    account TEXT NOT NULL,
    PRIMARY KEY (item, account)
) WITHOUT ROWID;

-- Every message of a conversation: where it is on both sides, never its words.
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversation (id),
    item INTEGER REFERENCES item (id),
    role TEXT NOT NULL,       -- inward, stranger, outward, internal, bot
    remote TEXT,              -- id on the other side
    refs TEXT NOT NULL DEFAULT '',
    event TEXT,               -- id in Matrix
    sender TEXT NOT NULL,     -- account or Matrix id
    title TEXT NOT NULL DEFAULT '',
    memo TEXT NOT NULL DEFAULT '',
    original TEXT,            -- JSON of the file in the spool
    uid TEXT,                 -- of the delivery that sent it, for outward ones
    created REAL NOT NULL
);
CREATE INDEX message_event ON message (event) WHERE event IS NOT NULL;
CREATE INDEX message_remote ON message (remote) WHERE remote IS NOT NULL;
CREATE INDEX message_uid ON message (uid) WHERE uid IS NOT NULL;
CREATE INDEX message_conversation ON message (conversation, id);

-- What still has to reach a destination. AUTOINCREMENT: a place in a lane is never given twice.
CREATE TABLE queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL UNIQUE,
    lane TEXT NOT NULL,
    destination TEXT NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL,      -- ready, asked, held, paused, dead
    conversation INTEGER,
    created REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    doubt REAL,
    error TEXT NOT NULL DEFAULT '',
    hold REAL NOT NULL DEFAULT 0,
    source TEXT,              -- event with the words of an outward message
    cause TEXT,               -- event that asked to send it
    preview TEXT,             -- event that shows it before it leaves
    author TEXT
);
CREATE INDEX queue_lane ON queue (lane, id);
CREATE INDEX queue_source ON queue (source) WHERE source IS NOT NULL;
CREATE INDEX queue_cause ON queue (cause) WHERE cause IS NOT NULL;
CREATE INDEX queue_preview ON queue (preview) WHERE preview IS NOT NULL;
CREATE INDEX queue_waiting ON queue (conversation, state) WHERE state <> 'ready';
CREATE INDEX queue_draft ON queue (id) WHERE kind = 'draft';
CREATE INDEX queue_unsent ON queue (conversation) WHERE kind = 'draft';

-- The bot's reactions, so that they can be taken back.
CREATE TABLE mark (
    target TEXT NOT NULL,
    key TEXT NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (target, key)
) WITHOUT ROWID;

CREATE TABLE ghost (mxid TEXT PRIMARY KEY, realm TEXT NOT NULL, account TEXT NOT NULL, name TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE membership (mxid TEXT NOT NULL, room TEXT NOT NULL, PRIMARY KEY (mxid, room)) WITHOUT ROWID;
CREATE TABLE profile (mxid TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;

-- How far each room was read from the homeserver without a gap.
CREATE TABLE room (room TEXT PRIMARY KEY, marker TEXT NOT NULL) WITHOUT ROWID;

-- Small content of the spool; larger content is a file named by its hash.
CREATE TABLE blob (hash TEXT PRIMARY KEY, data BLOB NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX blob_at ON blob (at);
CREATE INDEX seen_at ON seen (at);

-- Outward messages released in the last hour, for the breaker per pair of addresses: in whose name, and to whom.
CREATE TABLE released_to (
    connector TEXT NOT NULL,
    scope TEXT NOT NULL,
    account TEXT NOT NULL,
    uid TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (connector, scope, account, uid)
) WITHOUT ROWID;

-- Rooms by alias, as last resolved: mail is taken although the homeserver is down when we start.
CREATE TABLE alias (alias TEXT PRIMARY KEY, room TEXT NOT NULL) WITHOUT ROWID;

-- How far each connector that is polled was read.
CREATE TABLE cursor (connector TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Whose account in a tool is whose: proven by a code that was written there.
CREATE TABLE account (
    mxid TEXT NOT NULL,
    connector TEXT NOT NULL,
    account TEXT NOT NULL,
    PRIMARY KEY (mxid, connector)
) WITHOUT ROWID;
CREATE INDEX account_owner ON account (connector, account);
CREATE TABLE claim (
    code TEXT PRIMARY KEY,
    mxid TEXT NOT NULL,
    connector TEXT NOT NULL,
    account TEXT NOT NULL,
    room TEXT NOT NULL,       -- where to say that it is proven
    conversation INTEGER NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;

-- Which rights people heard last that the bot lacks in a room: they hear it once, also over restarts.
CREATE TABLE lacking (room TEXT PRIMARY KEY, rights TEXT NOT NULL) WITHOUT ROWID;

-- Rooms that were found encrypted; there is no way back (Matrix spec, m.room.encryption).
CREATE TABLE encrypted (room TEXT PRIMARY KEY) WITHOUT ROWID;
