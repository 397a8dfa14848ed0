"""The demo: a company's day on a real homeserver, played by `python -m tests.demo` and checked as it goes.

stage.py       what runs: homeserver, tools, bridge, the world outside; accounts, a space, rooms
tracker.py     the tracker's people, and how the bridge is told of it; crm.py, documents.py: the same of those
transcript.py  what is printed: who said what where, what left the company, what the tools have
checks.py      what must be true, counted
play.py        what the scenes need to say, see and check
scenes/        the story, one function a scene; STORY is their order
mail.py        a command to send a mail by hand
"""
