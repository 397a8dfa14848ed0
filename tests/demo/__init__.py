"""The demo: a company's day on a real homeserver, played by `python -m tests.demo` and checked as it goes.

stage.py       what runs: homeserver, bridge, the world outside; accounts, a space, rooms
transcript.py  what is printed: who said what where, and what left the company
checks.py      what must be true, counted
play.py        what the scenes need to say, see and check
scenes/        the story, one function a scene; STORY is their order
mail.py        a command to send a mail by hand
"""
