-- Schema 3: items with rooms of their own, changes collapsed in one line. Open until it is released.

-- What a conversation shows of an item that it hears nothing of now: its room may not see it any more ("outside"), or
-- its tool has it no more ("gone").
CREATE TABLE aside (
    item INTEGER NOT NULL REFERENCES item (id),
    conversation INTEGER NOT NULL REFERENCES conversation (id),
    why TEXT NOT NULL,
    card TEXT NOT NULL,       -- JSON of the card that stands there instead of the item's own
    PRIMARY KEY (item, conversation)
) WITHOUT ROWID;

-- Lines about changes of an item: those of a minute are one message, edited in place.
CREATE TABLE line (
    id INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversation (id),
    item INTEGER NOT NULL REFERENCES item (id),
    at REAL NOT NULL,         -- when the first of them was written down
    card TEXT NOT NULL,       -- JSON of how the item stood before it
    who TEXT NOT NULL,        -- JSON: names of those who made them
    event TEXT                -- the message, once it is in the room
);
CREATE INDEX line_item ON line (item, conversation, at);

-- The employee who acted last on an item, in its tool or through us.
CREATE TABLE actor (item INTEGER PRIMARY KEY REFERENCES item (id), mxid TEXT NOT NULL);

-- Conversations with a room of their own: the whole room is their thread. Those that ended stay, for late rows.
CREATE TABLE own_room (
    conversation INTEGER NOT NULL REFERENCES conversation (id),
    room TEXT NOT NULL,       -- "" while it is being made
    home TEXT NOT NULL,       -- where its thread is, and goes on when this room is archived
    root TEXT NOT NULL,       -- of that thread
    closing TEXT NOT NULL,    -- uid of the summary that must be accepted before it is archived, "" for none
    at REAL NOT NULL,
    ended REAL                -- when it was archived
);
CREATE INDEX own_room_conversation ON own_room (conversation);
CREATE INDEX own_room_room ON own_room (room);
-- The cards in the thread that such a conversation has left: they are edited again when it comes back.
CREATE TABLE own_card (
    conversation INTEGER NOT NULL REFERENCES conversation (id),
    item INTEGER NOT NULL REFERENCES item (id),
    event TEXT NOT NULL,
    PRIMARY KEY (conversation, item)
) WITHOUT ROWID;
-- Messages in threads inside such a room: what answers one must be in the same thread, or some clients show it nowhere.
CREATE TABLE own_thread (
    event TEXT PRIMARY KEY,
    root TEXT NOT NULL,
    conversation INTEGER NOT NULL REFERENCES conversation (id)
) WITHOUT ROWID;

-- Whose account in a tool is whose by the configuration: it wins over what was proven by a code.
CREATE TABLE declared_account (
    mxid TEXT NOT NULL,
    connector TEXT NOT NULL,
    account TEXT NOT NULL,
    PRIMARY KEY (mxid, connector),
    UNIQUE (connector, account)
) WITHOUT ROWID;
