"""Wikitext and titles, as people and wikis write them. Pure; linear in the length of what comes in."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from urllib.parse import parse_qsl, unquote

from bridge.model import Draft
from bridge.text import clean, one_line

# What could mean something in wikitext, for the parser or when it is saved; and what is an address, which may.
_MARKUP = re.compile(r"[\[\]{}|<>&~_']|^[\s*#:;=-]")
_ADDRESS = re.compile(r"(https?://[^\s\[\]{}|<>\"'~]+)")
_SECTION = re.compile(r"/\*(.{1,300}?)\*/")  # in a summary
_MARK = re.compile(r"\(?(passerelle\.[a-z0-9.-]{1,200})\)?")
_INVALID = re.compile(r"[\[\]{}|<>#\x00-\x1f\x7f]")


class Titles:
    """How people name pages: PREFIX#12, PREFIX:Title, addresses of the wiki; and the plugin's own names for them.

    `article_path` is $wgArticlePath ("" when it is not configured), `sites` are what index.php is in.
    """

    def __init__(self, prefix: str, article_path: str, *sites: str) -> None:
        known = []
        for site in sites:
            origin, folder = re.fullmatch(r"([^/]*//[^/]*)(.*)", site).groups()  # type: ignore[union-attr]
            before, _, after = (re.escape(each) for each in article_path.partition("$1"))
            path = rf"{before}(?P<short>[^?#]+){after}(?:[?#].*)?|" if article_path else ""
            known.append(rf"(?i:{re.escape(origin)})(?:{path}{re.escape(folder)}(?P<rest>.*))")
        self._sites = [re.compile(each, re.DOTALL) for each in known]
        prefix = re.escape(prefix)
        self._key = re.compile(rf"(?:mediawiki|{prefix}#)([1-9]\d{{0,9}})", re.IGNORECASE | re.ASCII)
        self._titled = re.compile(rf"(?:mediawiki|{prefix}):(.+)", re.IGNORECASE)

    def find(self, text: str) -> str:
        """`mediawiki12`; `mediawiki-rev34` or `mediawiki:Title` where only the wiki knows more; "" for all else."""
        text = text.strip()
        if found := self._key.fullmatch(text):
            return f"mediawiki{found[1]}"
        if re.fullmatch(r"mediawiki-rev[1-9]\d{0,9}", text, re.ASCII):
            return text
        if found := self._titled.fullmatch(text):
            return _titled(found[1])
        for site in self._sites:
            if found := site.fullmatch(text):
                parts = found.groupdict()
                return _titled(unquote(parts["short"])) if parts.get("short") else _asked(parts["rest"] or "")
        return ""


def _asked(address: str) -> str:
    """What an address below the wiki's folder asks for."""
    path, _, query = address.partition("#")[0].partition("?")
    asked = dict(parse_qsl(query)) if path in ("", "index.php") else {}
    if path.startswith("index.php/"):
        return _titled(unquote(path.removeprefix("index.php/")))
    for name, kind in (("curid", "mediawiki"), ("diff", "mediawiki-rev"), ("oldid", "mediawiki-rev")):
        if re.fullmatch(r"[1-9]\d{0,9}", asked.get(name, ""), re.ASCII):
            return f"{kind}{asked[name]}"
    return _titled(asked.get("title", ""))


def _titled(title: str) -> str:
    title = " ".join(title.partition("#")[0].replace("_", " ").split()).strip(": ")
    harmless = title and len(title.encode(errors="replace")) <= 255 and not _INVALID.search(title)
    return f"mediawiki:{title.replace(' ', '_')}" if harmless else ""


# --- what comes in


def added(old: str, new: str) -> str:
    """The lines that are new or different; blank ones only between them."""
    known, found = Counter(old.splitlines()), list[str]()
    for line in new.splitlines():
        if line.strip() and known[line]:
            known[line] -= 1
        else:
            found.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(found)).strip()


def headings(lines: list[str]) -> list[tuple[int, int, str]]:
    """(place, level, words) of each heading."""
    found = []
    for place, line in enumerate(map(str.rstrip, lines)):
        if line.startswith("=") and line.endswith("=") and (words := line.strip("=").strip()):
            found.append((place, len(line) - len(line.lstrip("=")), words))
    return found


def heading_of(text: str, summary: str) -> str:
    """The section in which something was added: the last that came with it, else what the summary says."""
    found, said = headings(text.splitlines()), _SECTION.search(summary[:1000])
    return one_line(found[-1][2] if found else said[1] if said else "")[:255]


def unsigned(text: str, user: str) -> str:
    """Without the signature at its end: a link to the user, perhaps to their talk page, and the time with its zone."""
    if not user:
        return text
    line = text[text.rfind("\n") + 1 :][-2000:]
    link = rf"\[\[[^\[\]]{{0,60}}{re.escape(user)}[^\[\]]{{0,300}}\]\](?: ?\(\[\[[^\[\]]{{0,300}}\]\]\))?"
    found = re.search(rf"\s*(?:--|[—–])?\s?{link} [^\[\]]{{8,50}}\([A-Z]{{2,5}}\)\s*$", line)
    return text[: len(text) - len(found[0])] if found else text


def absolute(html: str, web: str) -> str:
    """With links that lead somewhere from outside the wiki, too."""
    origin = "/".join(web.split("/")[:3])
    return re.sub(r'(<a\s[^<>]{0,500}?href=")/(?!/)', rf"\g<1>{origin}/", html)


def reason(summary: str) -> str:
    """What a summary says to people."""
    words = _SECTION.sub(lambda found: f"{found[1].strip()}:", _MARK.sub("", summary[:1000]))
    return one_line(words).strip(" :")[:100]


def mark_in(summary: str) -> str:
    """The last word that looks like one: what stands before is a heading, and a name, of anybody's."""
    found = _MARK.findall(summary[:1000])
    return found[-1] if found else ""


# --- what leaves


def words(draft: Draft, *, named: bool = False) -> str:
    """What is said, and by whom if that is wanted; no wiki takes our files, so they are named."""
    text = replace(draft, account="" if named else draft.author).plain
    return "\n".join([text, *(f"[{one_line(file.name)}]" for file in draft.files if file.name not in text)])


def literal(line: str) -> str:
    """One line of anybody's text, shown as it is; addresses are links."""
    parts = _ADDRESS.split(clean(line).replace("\n", " "))
    return "".join(part if n % 2 and "__" not in part else _plain(part) for n, part in enumerate(parts))


def _plain(text: str) -> str:
    if not _MARKUP.search(text):
        return text
    return f"<nowiki>{text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}</nowiki>"


def comment(text: str, name: str, account: str) -> str:
    """A comment on a talk page: its lines, and who has said it when; a link to whom the wiki knows."""
    who = f"[[User:{account}|{literal(name)}]]" if account and not _INVALID.search(account) else literal(name)
    return "\n".join(f":{literal(line)}" for line in clean(text).strip().split("\n")) + f"\n:— {who}, ~~~~~"


def placed(page: str, comment: str, wanted: str, otherwise: str) -> tuple[str, str]:
    """The talk page with the comment at the end of the section `wanted`, else of `otherwise`, made if it is not there;
    and which of them it was.
    """
    lines = page.rstrip().split("\n") if page.strip() else []
    found = headings(lines)
    for heading in filter(None, (wanted, otherwise)):
        for at, (_, level, words) in enumerate(found):
            if one_line(words) == heading:
                end = next((place for place, deeper, _ in found[at + 1 :] if deeper <= level), len(lines))
                before, after = "\n".join(lines[:end]).rstrip(), "\n".join(lines[end:])
                return "\n\n".join(filter(None, (before, comment, after))), heading
    return "\n\n".join(filter(None, ("\n".join(lines), f"== {otherwise} ==\n{comment}"))), otherwise
