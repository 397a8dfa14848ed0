"""What is said of items that tools have names for: what was changed, what a room may not see, what is gone."""

from __future__ import annotations

CARDS: dict[str, tuple[str, str]] = {
    "item-changed": ("{who} changed {key}: {changes}", "{who} a modifié {key} : {changes}"),
    "item-differs": ("{key} changed: {changes}", "{key} modifié : {changes}"),
    "item-as-before": (
        "{key} was changed and is as it was before.",
        "{key} a été modifié, puis remis comme avant.",
    ),
    "item-as-before-by": (
        "{key} was changed and is as it was before ({who}).",
        "{key} a été modifié, puis remis comme avant ({who}).",
    ),
    "somebody": ("somebody", "quelqu'un"),
    "item-set": ("{who} set {word} of {key}: {value}", "{who} a mis {word} de {key} : {value}"),
    "item-urgent": ("⚠️ {key} asks for a person: {title}", "⚠️ {key} demande une personne : {title}"),
    "item-outside": (
        "{key} is no longer among what this room may see: nothing more of it arrives here.",
        "{key} ne fait plus partie de ce que ce salon peut voir : plus rien n'en arrive ici.",
    ),
    "item-back": ("{key} can be seen here again.", "{key} est de nouveau visible ici."),
    "item-gone": (
        "{key} was deleted in {connector}. What was said of it stays here; nothing more arrives, and nothing can be "
        "sent to it.",
        "{key} a été supprimé dans {connector}. Ce qui en a été dit reste ici ; plus rien n'en arrive ni n'y part.",
    ),
    "label-state": ("state", "état"),
    "state-deleted": ("deleted", "supprimé"),
    "link-none": ("There is no {item} in {connector}.", "Il n'y a pas de {item} dans {connector}."),
    "link-outside": (
        "{item} is in a part of {connector} that this room is not mapped to, so nothing of it may be shown here. "
        "Whoever may map this room can type !map {connector}; with “linked” at its end, only what people link or "
        "mention appears here.",
        "{item} est dans une partie de {connector} à laquelle ce salon n'est pas relié : rien n'en est montré ici. Qui "
        "peut relier ce salon tape !map {connector} ; avec « lié » à la fin, seul ce qu'on lie ou mentionne paraît.",
    ),
    "link-private": (
        "{item} is private, and this room is mapped without {connector}'s private notes. Link it in a room that may "
        "see them, or ask whoever maps this room: !map {connector} … private",
        "{item} est privé, et ce salon est relié sans les notes privées de {connector}. Liez-le dans un salon qui peut "
        "les voir, ou demandez à qui relie ce salon : !map {connector} … privé",
    ),
    "aside-outside": (
        "{title} is no longer among what this room may see: nothing of it can be asked for or sent from here. Use a "
        "room that is mapped to where it is now.",
        "{title} ne fait plus partie de ce que ce salon peut voir : rien ne peut y être demandé ni envoyé d'ici. "
        "Passez par un salon relié à son nouvel emplacement.",
    ),
    "aside-gone": (
        "{title} was deleted in {connector}: nothing can be sent to it. !unlink takes it out of this thread.",
        "{title} a été supprimé dans {connector} : rien ne peut y être envoyé. !unlink le retire de ce fil.",
    ),
    "mapped-when-linked": (
        "✅ What people link or mention of {scope} ({connector}) appears in this room from now on.",
        "✅ Ce qu'on lie ou mentionne de {scope} ({connector}) apparaît désormais dans ce salon.",
    ),
    "mapped-linked": (
        "only what people link or mention, nothing new by itself",
        "seulement ce qu'on lie ou mentionne, rien de nouveau de lui-même",
    ),
}
