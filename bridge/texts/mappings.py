"""What the bridge says to people about mappings, and about who may do what, in English and French."""

from __future__ import annotations

MAPPINGS: dict[str, tuple[str, str]] = {
    "may-not": (
        "!{act} is not for you: only {names} may ({key} in the configuration).",
        "!{act} ne vous est pas permis : seulement à {names} ({key} dans la configuration).",
    ),
    "may-not-map": (
        "Only {names} may map {connector}: permissions.map in the configuration.",
        "Seul {names} peut relier {connector} : permissions.map dans la configuration.",
    ),
    "nobody-yet": ("nobody yet", "personne encore"),
    "map-which": (
        "What should appear in this room? You may map: {connectors}. What each of them has follows; type !map, one of "
        "them, and what of it.",
        "Que doit-il apparaître dans ce salon ? Vous pouvez relier : {connectors}. Ce que chacun contient suit ; tapez "
        "!map, l'un d'eux, puis l'élément voulu.",
    ),
    "map-whose": (
        "“{scope}”: in which of {connectors}? Type it between the command and “{scope}”.",
        "« {scope} » : dans lequel de {connectors} ? Tapez-le entre la commande et « {scope} ».",
    ),
    "map-usage": (
        "I do not understand “{text}”. Type: !map TOOL WHAT, then private if private notes may be seen here, and what "
        'to take only, such as state=open or subject="*invoice*".',
        "Je ne comprends pas « {text} ». Tapez : !map OUTIL QUOI, puis private si les notes privées peuvent être vues "
        'ici, et ce qu\'il faut prendre seulement : state=open ou subject="*facture*".',
    ),
    "map-no-filter": (
        "{connector} cannot choose by “{filter}”. It can by: {filters}",
        "{connector} ne peut pas choisir par « {filter} ». Il le peut par : {filters}",
    ),
    "map-offer": ("{connector} has: {offers}. Type: {example}", "{connector} contient : {offers}. Tapez : {example}"),
    "map-no-scope": (
        "{connector} has no “{scope}”. It has: {offers}. Type: {example}",
        "{connector} n'a pas de « {scope} ». Il contient : {offers}. Tapez : {example}",
    ),
    "tool-empty": (
        "{connector} has nothing that a room could be mapped to.",
        "{connector} n'a rien à quoi un salon puisse être relié.",
    ),
    "tool-unasked": (
        "⚠️ {connector} does not say what it has ({reason}). Nothing is mapped; type it again later.",
        "⚠️ {connector} ne dit pas ce qu'il contient ({reason}). Rien n'est relié ; retapez plus tard.",
    ),
    "map-power": (
        "You need power level {needed} in this room for that (you have {level}). Ask: {who}",
        "Il vous faut le niveau {needed} dans ce salon (vous avez {level}). Demandez à : {who}",
    ),
    "map-encrypted": (
        "This room is encrypted and I cannot read encrypted rooms yet. Map a room that is not.",
        "Ce salon est chiffré et je ne lis pas encore les salons chiffrés. Reliez un salon qui ne l'est pas.",
    ),
    "map-upgraded": (
        "This room was replaced by another one. Type it there.",
        "Ce salon a été remplacé par un autre. Tapez-le là-bas.",
    ),
    "map-pinned": (
        "{scope} ({connector}) is mapped to this room by the configuration: whoever keeps that file changes it there.",
        "{scope} ({connector}) est relié à ce salon par la configuration : c'est là que cela se change.",
    ),
    "mapped": (
        "✅ What comes from {scope} ({connector}) appears in this room from now on.",
        "✅ Ce qui vient de {scope} ({connector}) apparaît désormais dans ce salon.",
    ),
    "mapped-only": ("only what fits: {only}", "seulement ce qui convient : {only}"),
    "mapped-private": ("private notes, too", "notes privées comprises"),
    "mapped-elsewhere": ("It is also mapped to {rooms}.", "Également relié à {rooms}."),
    "mapped-leaves-out": (
        "⚠️ Every mapping of {scope} takes only what fits: all else is refused. Map it once without a condition, here "
        "or in another room.",
        "⚠️ Tout ce qui relie {scope} pose une condition : le reste est refusé. Reliez-le une fois sans condition, ici "
        "ou ailleurs.",
    ),
    "mapped-how": (
        "What you write in its threads stays inside until you !reply. !unmap ends it.",
        "Ce que vous écrivez dans ses fils reste interne jusqu'à !reply. !unmap y met fin.",
    ),
    "mapped-by": ("mapped by {who}", "relié par {who}"),
    "mapped-pinned": ("mapped by the configuration", "relié par la configuration"),
    "room-unknown": ("⚠️ the room is not known yet", "⚠️ le salon n'est pas encore connu"),
    "nothing-mapped": ("Nothing is mapped here. !map does it.", "Rien n'est relié ici. !map le fait."),
    "and-more": ("… and {count} more", "… et {count} autres"),
    "unmap-which": ("Which one? {mappings}", "Lequel ? {mappings}"),
    "unmapped": (
        "{scope} ({connector}) is no longer mapped to this room. Its threads stay readable; nothing comes or leaves "
        "here any more.",
        "{scope} ({connector}) n'est plus relié à ce salon. Ses fils restent lisibles ; plus rien n'y arrive ni n'en "
        "part.",
    ),
    "not-mapped-any-more": (
        "{scope} ({connector}) is no longer mapped to this room: an answer could not come back here. Map it again "
        "(!map {connector} {scope}), or write from a room where it is.",
        "{scope} ({connector}) n'est plus relié à ce salon : une réponse ne reviendrait pas ici. Reliez-le à nouveau "
        "(!map {connector} {scope}), ou écrivez depuis un salon où il l'est.",
    ),
    "operators-mapped": (
        "{who} mapped {scope} ({connector}) to {room}.",
        "{who} a relié {scope} ({connector}) à {room}.",
    ),
    "operators-unmapped": (
        "{who} ended the mapping of {scope} ({connector}) to {room}.",
        "{who} a mis fin au lien de {scope} ({connector}) avec {room}.",
    ),
    "help-map": (
        "!map — ties this room to a tool: says what there is, asks for what is missing",
        "!map — relie ce salon à un outil : dit ce qu'il y a, demande ce qui manque",
    ),
    "help-unmap": ("!unmap WHAT — ends that", "!unmap QUOI — y met fin"),
    "help-mappings": ("!mappings — what this room is tied to", "!mappings — ce à quoi ce salon est relié"),
}
