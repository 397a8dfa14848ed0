"""What became of everything on the tools' side: their items and comments, and their rooms, compared."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from tests.crash.desks import Reply
from tests.crash.families import Comment, There, mark_in
from tests.crash.stage import Stage, Tool
from tests.crash.tools import Caller, Spoken, ToolDesk, card_in, last_card
from tests.crash.verdict import Count
from tests.peers.employee import body, relation, thread_of

LEFT = "✉️"


@dataclass(frozen=True)
class Told:
    """A customer's words as the room shows them."""

    place: int
    event: str
    thread: str
    sender: str


async def judge_tool(stage: Stage, tool: Tool, callers: list[Caller], desks: list[ToolDesk], count: Count) -> None:
    """Add to the figures."""
    timeline = await stage.timeline(tool.room)
    there = await tool.family.there()
    cards = _cards(stage, tool, timeline)
    comments = sum(bool(each.mark) for each in there.comments)
    count.items, count.comments = count.items + len(there.titles), count.comments + comments
    count.more[tool.name] = f"{len(there.titles)} items, {comments} comments"
    for item in there.titles:
        count.once(f"the card of {item}", "items", cards.get(item, []))
    for item, words in there.shows.items():
        if words not in (card := last_card(stage, tool, timeline, item)):
            count.blame("lost", f"the card of {item} says {json.dumps(card)}, not {words}", "items_lost")
    told = _told(stage, tool, timeline)
    theirs = {each.mark: each for each in there.comments if each.mark and not each.ours}
    for comment in theirs.values():
        _shown(stage, tool, comment, told.get(comment.mark, []), cards, count)
    for mark in set(told) - set(theirs):
        count.blame("duplicated", f"{mark} is ours and came back", "comments_doubled")
    _order(theirs, told, {mark: each for caller in callers for mark, each in caller.spoken.items()}, count)
    _asked(timeline, desks, there, count)


def _cards(stage: Stage, tool: Tool, timeline: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The threads of each item: where its card is."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for event in timeline:
        if item := card_in(stage, tool, event):
            found[item].append(thread_of(event) or event["event_id"])
    return found


def _told(stage: Stage, tool: Tool, timeline: list[dict[str, Any]]) -> dict[str, list[Told]]:
    found: defaultdict[str, list[Told]] = defaultdict(list)
    ghosts = stage.ghost("", tool.name).partition(":")[0]
    for place, event in enumerate(timeline):
        mark = mark_in(body(event)) if event["type"] == "m.room.message" else ""
        if mark and (event["sender"].startswith(ghosts) or _calls_all(event)):
            author = "" if _calls_all(event) else event["sender"]  # what calls everybody, the bot says for its author
            found[mark].append(Told(place, event["event_id"], thread_of(event) or "", author))
    return found


def _calls_all(event: dict[str, Any]) -> bool:
    return bool(event["content"].get("m.mentions", {}).get("room"))


def _shown(
    stage: Stage, tool: Tool, comment: Comment, there: list[Told], cards: dict[str, list[str]], count: Count
) -> None:  # fmt: skip
    what = f"{comment.mark} of {comment.creator} on {comment.item}"
    count.once(what, "comments", there)
    for each in there[:1]:
        if each.thread not in cards.get(comment.item, []):
            count.blame("astray", f"{what} is in the thread {each.thread}")
        if each.sender not in ("", stage.ghost(comment.creator, tool.name)):
            count.blame("astray", f"{what} is shown as said by {each.sender}")


def _order(
    comments: dict[str, Comment], told: dict[str, list[Told]], spoken: dict[str, Spoken], count: Count
) -> None:  # fmt: skip
    """What was in the tool before somebody began to say something else stands before that."""
    for one, other in permutations((mark for mark in comments if told.get(mark)), 2):
        same = comments[one].item == comments[other].item
        if same and _before(spoken[one], spoken[other]) and told[one][0].place > told[other][0].place:
            count.blame("reordered", f"{other} stands before {one}")


def _before(one: Spoken, other: Spoken) -> bool:
    return one.ended is not None and one.ended < other.began


def _asked(timeline: list[dict[str, Any]], desks: list[ToolDesk], there: There, count: Count) -> None:
    """Each reply is one comment and each item asked for is one item, in the order of asking."""
    comments: defaultdict[str, list[Comment]] = defaultdict(list)
    for comment in there.comments:
        if comment.ours:
            comments[comment.mark].append(comment)
    asked = {reply.mark: (desk, reply) for desk in desks for reply in desk.replies()}
    for desk, reply in asked.values():
        count.rescued += bool(desk.troubles(reply))
        found: list[Any] = comments.get(reply.mark, [])
        if not reply.partner:
            found = [item for item, mark in there.titles.items() if mark == reply.mark]
        said = json.dumps([body(each)[:80] for each in desk.answers(reply)])
        count.once(f"{reply.mark} (the bot said {said})", "comments" if reply.partner else "items", found)
        if reply.partner and {each.item for each in found} - {reply.partner}:
            count.blame("astray", f"{reply.mark} is not on {reply.partner}")
    for mark in {mark for mark in (*comments, *there.titles.values()) if mark} - set(asked):
        count.blame("astray", f"{mark} is in the tool and nobody asked for it")
    _asked_order(timeline, asked, comments, count)


def _asked_order(
    timeline: list[dict[str, Any]],
    asked: dict[str, tuple[ToolDesk, Reply]],
    comments: dict[str, list[Comment]],
    count: Count,
) -> None:
    """In a conversation, what nobody held up or hastened is in the tool in the order of asking."""
    places = {event["event_id"]: place for place, event in enumerate(timeline)}
    last: dict[str, tuple[int, str]] = {}
    for desk, reply in sorted(asked.values(), key=lambda each: places[each[1].event]):
        found = comments.get(reply.mark)
        if not reply.partner or not found or desk.troubles(reply) or _hastened(timeline, places, reply):
            continue
        before, mark = last.get(reply.root, (0, ""))
        if found[0].number < before:
            count.blame("reordered", f"{reply.mark} was asked after {mark} and left before it")
        last[reply.root] = max(last.get(reply.root, (0, "")), (found[0].number, reply.mark))


def _hastened(timeline: list[dict[str, Any]], places: dict[str, int], reply: Reply) -> bool:
    """Whether its author said `!send` (of another one) before it had left."""
    for event in timeline[places[reply.event] :]:
        about = relation(event).get("event_id")
        if event["type"] == "m.reaction" and about == reply.event and relation(event).get("key") == LEFT:
            return False
        if body(event) == "!send" and event["sender"] == reply.author and thread_of(event) == reply.root:
            return True
    return False
