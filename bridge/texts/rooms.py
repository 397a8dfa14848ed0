"""What the bridge says about rooms themselves: coming, being removed, upgrades. In English and French."""

from __future__ import annotations

ROOMS: dict[str, tuple[str, str]] = {
    "hello-encrypted": (
        "I tie rooms to business tools, but this room is encrypted and I cannot read encrypted rooms yet: it cannot be "
        "mapped. Invite me into a room without encryption.",
        "Je relie des salons aux outils de travail, mais ce salon est chiffré et je ne lis pas encore les salons "
        "chiffrés : il ne peut être relié. Invitez-moi dans un salon sans chiffrement.",
    ),
    "kicked": (
        "⚠️ {who} removed me from {room}. Mapped there: {scopes}. What comes for it waits; type /invite {bot} there and "
        "it is shown, in order. Or map it to another room.",
        "⚠️ {who} m'a retiré de {room}. Relié là-bas : {scopes}. Ce qui arrive attend ; tapez-y /invite {bot} et tout "
        "est montré, dans l'ordre. Ou reliez un autre salon.",
    ),
    "banned": (
        "⚠️ {who} banned me from {room}. Mapped there: {scopes}. What comes for it waits; type /unban {bot} and "
        "/invite {bot} there and it is shown, in order. Or map it to another room.",
        "⚠️ {who} m'a banni de {room}. Relié là-bas : {scopes}. Ce qui arrive attend ; tapez-y /unban {bot} puis "
        "/invite {bot} et tout est montré, dans l'ordre. Ou reliez un autre salon.",
    ),
    "declined": (
        "{who} invited {whom} into {room}, who may not do that: the invitation was declined. People who may are listed "
        "under “permissions” in the configuration.",
        "{who} a invité {whom} dans {room} sans y être autorisé : l'invitation a été déclinée. Les personnes "
        "autorisées sont sous « permissions » dans la configuration.",
    ),
    "declined-more": (
        "More such invitations are declined today without a word here.",
        "D'autres invitations de ce genre sont déclinées aujourd'hui sans autre message.",
    ),
    "not-entered": (
        "⚠️ I cannot enter {room} ({reason}). Mapped there: {scopes}. What comes for it has to wait. If the name "
        "is right, type /invite {bot} there.",
        "⚠️ Je ne peux pas entrer dans {room} ({reason}). Relié là-bas : {scopes}. Ce qui arrive doit attendre. Si "
        "le nom est juste, tapez-y /invite {bot}.",
    ),
    "empty": (
        "⚠️ Nobody is left in {room}, but it is mapped: {scopes}. What comes for it is shown there and nobody sees it. "
        "Somebody should join, or it should be mapped to another room.",
        "⚠️ Il n'y a plus personne dans {room}, qui est pourtant relié : {scopes}. Ce qui arrive y est montré et "
        "personne ne le voit. Quelqu'un doit y entrer, ou un autre salon doit être relié.",
    ),
    # upgraded rooms
    "upgraded": (
        "This room replaces {old}. What was mapped there is mapped here: {scopes}. Conversations go on here with their "
        "next message.",
        "Ce salon remplace {old}. Ce qui y était relié l'est ici : {scopes}. Les conversations continuent ici avec "
        "leur prochain message.",
    ),
    "upgraded-operators": (
        "{old} was upgraded and is replaced by {new}. What was mapped there is mapped here: {scopes}.",
        "{old} a été mis à niveau et remplacé par {new}. Ce qui y était relié l'est ici : {scopes}.",
    ),
    "upgraded-named": (
        "The configuration still names {name}: that goes on working; write {new} there when convenient.",
        "La configuration nomme encore {name} : cela continue de marcher ; écrivez-y {new} à l'occasion.",
    ),
    "upgrade-waits": (
        "⚠️ {old} was upgraded and I cannot enter the room that replaces it ({reason}). Type /invite {bot} in the new "
        "room. What comes for it waits until then: {scopes}.",
        "⚠️ {old} a été mis à niveau et je ne peux pas entrer dans le nouveau salon ({reason}). Tapez-y /invite {bot}. "
        "Ce qui arrive attend jusque-là : {scopes}.",
    ),
    "upgrade-refused": (
        "⚠️ {old} says that {new} replaces it, but that room does not say that it comes from there: I stay in the old "
        "one. Mapped there: {scopes}.",
        "⚠️ {old} indique que {new} le remplace, mais ce salon ne dit pas qu'il en vient : je reste dans l'ancien. "
        "Relié là-bas : {scopes}.",
    ),
    "goes-on": ("{title}\nThis conversation goes on from {link}", "{title}\nSuite de {link}"),
    "why-upgraded": (
        "its room was upgraded, and in the old one nobody can stop it",
        "son salon a été mis à niveau, et dans l'ancien personne ne peut l'arrêter",
    ),
    "no-mapping": ("nothing", "rien"),
}
