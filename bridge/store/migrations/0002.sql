-- Mappings that can change while the bridge runs, and rooms that were upgraded.

-- Which scope is mapped to which room, and how. A declared one is as the configuration had it when it was last applied.
CREATE TABLE mapping (
    connector TEXT NOT NULL,
    scope TEXT NOT NULL,
    room TEXT NOT NULL,       -- as it was named: room id or alias
    policy TEXT NOT NULL,     -- JSON of what else the mapping says
    declared INTEGER NOT NULL,
    mxid TEXT NOT NULL,       -- who made it in the room; "" for a declared one
    at REAL NOT NULL,
    PRIMARY KEY (connector, scope, room, declared)
) WITHOUT ROWID;

-- Rooms that were upgraded, and the room that each was replaced by; "" while it cannot be entered yet (Matrix spec,
-- m.room.tombstone).
CREATE TABLE successor (room TEXT PRIMARY KEY, next TEXT NOT NULL) WITHOUT ROWID;

-- Where a conversation was before its room was upgraded: what is said in its old thread still belongs to it.
CREATE TABLE former (
    root TEXT PRIMARY KEY,    -- event id of the thread's root there
    room TEXT NOT NULL,
    conversation INTEGER NOT NULL REFERENCES conversation (id),
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX former_conversation ON former (conversation, at);
CREATE INDEX conversation_room ON conversation (room);
ALTER TABLE message ADD COLUMN room TEXT; -- where its event is, if not in the room of its conversation

-- Mappings that rooms were told of, by the state key of the event that says so (MSC2346).
CREATE TABLE announced (room TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (room, key)) WITHOUT ROWID;

-- How much waits and since when is asked all the time: without this, every row would be read, with what it carries.
CREATE INDEX queue_figures ON queue (destination, state, created);
