"""How what arrives and what is about to leave looks in a room. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from html import escape
from urllib.parse import unquote

from bridge.model import Card, Draft, Envelope, File
from bridge.text.html import html_to_text, matrix_to_html
from bridge.text.plain import (
    clean,
    matrix_to_text,
    one_line,
    spoken,
    text_to_html,
    trim,
    without_internal_links,
)
from bridge.texts import Texts

MOST_FIELDS = 4
MOST_REWORDED = 10_000  # bytes of a preview that is edited in place; a longer one is shown anew
LONGEST, LONGEST_URL = 300, 2000  # characters of what a card says, and of the address under it

_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_WORDS = re.compile(r"[^\W_]+")


def arrival(envelope: Envelope, title: str, say: Texts, limit: int) -> tuple[str, str, bool]:
    """(body, html, shortened) of a message from outside; `title` is shown above it unless ""."""
    text, shortened = trim(clean(envelope.text), limit)
    notes = [say("automatic")] if envelope.automatic else []
    tail = [say("long")] if shortened else []
    if envelope.folded:
        tail.append(say("folded", lines=envelope.folded))
    words = text or say("no-words")
    rich = envelope.html if envelope.html and not shortened else text_to_html(words)
    body = "\n".join([*notes, *([title, ""] if title else []), words, *(["", *tail] if tail else [])])
    html = "".join(
        [
            *(f"<p><em>{escape(note)}</em></p>" for note in notes),
            f"<p><strong>{escape(title)}</strong></p>" if title else "",
            rich,
            *(f"<p><em>{escape(note)}</em></p>" for note in tail),
        ]
    )
    return body, html, shortened


def card(shown: Card) -> tuple[str, str]:
    """(body, html) of the message that shows how an item stands: its key and title, what matters most, its address."""
    named = shown.key if shown.key.endswith(f"/{shown.title}") else ": ".join(filter(None, (shown.key, shown.title)))
    title = _short(named)  # a path ends with the name of what it leads to
    fields = [(_short(label), _short(value)) for label, value in shown.fields[:MOST_FIELDS] if value]
    url = shown.url if _ADDRESS.fullmatch(shown.url) and len(shown.url) <= LONGEST_URL else ""
    body = "\n".join(filter(None, [title, " · ".join(": ".join(pair) for pair in fields), url]))
    name = f'<a href="{escape(url)}">{escape(title)}</a>' if url else escape(title)
    said = " · ".join(f"{escape(label)}: <strong>{escape(value)}</strong>" for label, value in fields)
    return body, f"<strong>{name}</strong>" + (f"<br>{said}" if said else "")


def bare(shown: Card) -> Card:
    """Of a card only what says nothing of what it is about: its key, and where those look who may."""
    return Card(shown.item, shown.key, "", shown.url)


def pointed_at(found: Card, typed: str, name: str) -> Card:
    """The bare card of an item by the address or key that somebody typed: nothing that they did not know is in it.

    `name` is the tool's own name of what they typed; a key (the title of a page, say) may tell more.
    """
    known = set(_WORDS.findall(unquote(typed).casefold()))
    key = found.key if known.issuperset(_WORDS.findall(found.key.casefold())) else name
    return Card(found.item, key, "", typed if "://" in typed else found.url)


def changes(before: Card, after: Card) -> str:
    """What differs between two cards of an item, on one line; "" when nothing does."""
    was, now = dict(before.fields), dict(after.fields)
    pairs = [(label, was.get(label, ""), now.get(label, "")) for label in {**was, **now}]
    pairs += [("title", before.title, after.title)]
    return "; ".join(
        f"{_short(label)}: {_short(old) or '–'} → {_short(new) or '–'}" for label, old, new in pairs if old != new
    )


def _short(text: str) -> str:
    """What a tool says, on one line and not longer than people read."""
    line = one_line(text[: 4 * LONGEST])
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def leaving(draft: Draft) -> Draft:
    """The draft as people outside may see it: no quotes of inside messages, no links into the company's rooms.

    The preview shows the plain text: HTML that says anything else is left out.
    """
    text = matrix_to_text(draft.text, draft.html, is_reply=True).strip()
    html = matrix_to_html(draft.html) if draft.html else ""
    html = html if adds_nothing(html, text) else ""
    return replace(draft, text=text, html=html, title=without_internal_links(draft.title))


def preview(draft: Draft, say: Texts, footer: str) -> tuple[str, str]:
    """(body, html) of the notice that shows an outward message: to whom, which files, the words."""
    lines = _addressed(draft, say)
    words = [part for part in (draft.text, _transcript(draft, say)) if part]
    quoted = "\n".join(words).lstrip("\n")
    body = "\n".join([*lines, "", *(f"> {line}" for line in quoted.splitlines()), "", footer])
    html = (
        "<br>".join(map(escape, lines))
        + (f"<blockquote>{text_to_html(quoted)}</blockquote>" if quoted else "<br>")
        + f"<em>{escape(footer)}</em>"
    )
    return body, html


def short_preview(draft: Draft, say: Texts, footer: str) -> str:
    """The notice for an outward message too long to show: its words are in a file of their own."""
    return "\n".join([*_addressed(draft, say), "", say("preview-long"), "", footer])


def _addressed(draft: Draft, say: Texts) -> list[str]:
    lines = [say("preview", to=", ".join(map(str, draft.recipients.to)))]
    if draft.recipients.cc:
        lines.append(say("preview-cc", cc=", ".join(map(str, draft.recipients.cc))))
    if draft.title:
        lines.append(say("preview-subject", subject=draft.title))
    if draft.files:
        lines.append(say("preview-files", files=files(draft.files)))
    if draft.link:
        lines.append(say("preview-link", link=draft.link))
    return lines


def files(named: Iterable[File]) -> str:
    return ", ".join(f"{file.name} ({spoken(file.size)})" for file in named)


def _transcript(draft: Draft, say: Texts) -> str:
    return f"\n{say('transcript-heading')}\n{draft.transcript}" if draft.transcript else ""


def adds_nothing(html: str, text: str) -> bool:
    """Whether every word and link address of `html` stands in `text` as well, in the same order."""
    said = iter(_WORDS.findall(text.casefold()))
    return all(word in said for word in _WORDS.findall(html_to_text(html).casefold()))
