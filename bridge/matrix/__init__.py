"""Everything that speaks Matrix: the appservice's routes, the client, ghosts, rendering, media, catch-up."""
