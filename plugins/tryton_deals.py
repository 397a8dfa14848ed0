"""Opportunities and what is said on them: which rows of Tryton these are, how people read and write them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from bridge.model import Author, Card, Rejected
from bridge.text import one_line

DEAL, SALE, CHAT, NOTE = "sale.opportunity", "sale.sale", "ir.chat.message", "ir.note"
FILE, LOG = "ir.attachment", "ir.model.log"
WHO = ("create_date", "create_uid.login", "create_uid.name")
SHOWN = ("number", "description", "state", "amount", "currency.code", "conversion_probability", "party.rec_name")
ROW = (*SHOWN, *WHO, "company.rec_name", "comment", "write_date", "write_uid.login", "write_uid.name", "_timestamp")
SAID = ("content", "audience", "user.login", "user.name", "email", "channel.resource")
STORED = ("name", "type", "link", "data_size", "description", "resource")
SOURCES: dict[str, tuple[str, str, list[Any], tuple[str, ...]]] = {  # model, the time that orders it, domain, fields
    "made": (DEAL, "create_date", [], ROW),
    "changed": (DEAL, "write_date", [], ROW),
    "chat": (CHAT, "create_date", [["channel.resource", "like", f"{DEAL},%"]], (*WHO, *SAID)),
    "note": (NOTE, "create_date", [["resource", "like", f"{DEAL},%"]], (*WHO, "message", "resource")),
    "file": (FILE, "create_date", [["resource", "like", f"{DEAL},%"]], (*WHO, *STORED)),
    "gone": (LOG, "create_date", [["event", "=", "delete"], ["resource", "like", f"{DEAL},%"]], WHO),
}
SOUGHT = ("description", "party.rec_name", "reference", "number")
FIELDS = {"stage": "state", "amount": "amount", "probability": "conversion_probability"}
BUTTONS = {"lead": "lead", "opportunity": "opportunity", "converted": "convert", "lost": "lost", "cancelled": "cancel"}
EXAMPLES = {"stage": "lost", "amount": "12500.50", "probability": "70%"}


def about(kind: str, row: Any) -> int:
    """The id of the opportunity that a row is about; 0 when that is gone."""
    if kind in ("made", "changed"):
        return int(row["id"])
    place = (row["channel."] or {}) if kind == "chat" else row
    return int((place.get("resource") or ",0").partition(",")[2])


def named(row: Any, link: str) -> str:
    """What people call the record that a row's link leads to; "" when there is none."""
    return one_line((row[f"{link}."] or {}).get("rec_name") or "")


def author(realm: str, row: Any, role: str) -> Author:
    who = row.get(f"{role}.") or row["create_uid."] or {}
    return Author(realm, who.get("login") or "", who.get("name") or "", verified=bool(who))


def card(row: Any, page: str) -> Card:
    """`page` is what the web client's addresses of opportunities begin with."""
    key, party, amount = f"opportunity#{row['number']}", named(row, "party"), row["amount"] or {}
    worth = f"{amount.get('decimal', '')} {(row['currency.'] or {}).get('code', '')}" if amount else ""
    chance = f"{row['conversion_probability'] * 100:.4g} %"
    url = f"{page}{row['id']};name={quote(json.dumps(key), safe='/')}"
    fields = ("stage", row["state"]), ("amount", worth), ("probability", chance), ("party", party)
    return Card(f"opportunity/{row['id']}", key, one_line(row["description"] or "") or party or key, url, fields)


def sought(words: str) -> list[Any]:
    """The domain of those that have all the words."""
    escaped = [re.sub(r"([\\%_])", r"\\\1", word) for word in words.split()]
    return [["OR", *([name, "ilike", f"%{word}%"] for name in SOUGHT)] for word in escaped]


def wanted(word: str, value: str) -> Any:
    """A value as Tryton takes it. Raises `Rejected`, saying how it is written."""
    if word == "stage":
        if value.lower() not in {*BUTTONS, "won"}:
            raise Rejected(f"there is no stage {value}: {', '.join(BUTTONS)}, won")
        return value.lower()
    digits = re.sub(r"[\s']", "", value.removesuffix("%")).replace(",", ".")
    if not re.fullmatch(r"\d{1,15}(\.\d{1,15})?", digits, re.ASCII):
        raise Rejected(f"{value} is no {word}: write it like {EXAMPLES[word]}")
    return {"__class__": "Decimal", "decimal": digits} if word == "amount" else float(Decimal(digits) / 100)


def has(row: Any, word: str, value: Any) -> bool:
    """Whether a row has this value already."""
    found = row[FIELDS[word]]
    return bool(found == value or (found and word == "amount" and _number(found) == _number(value)))


def _number(value: Mapping[str, str]) -> Decimal:
    return Decimal(value["decimal"])
