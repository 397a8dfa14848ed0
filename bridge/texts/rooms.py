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
    # rooms of their own
    "help-room": (
        "!room [name] — gives this conversation a room of its own; !room close [summary] archives that",
        "!room [nom] — donne à cette conversation son propre salon ; !room close [résumé] l'archive",
    ),
    "room-made": (
        "This conversation goes on in a room of its own: {link} (invited: {count}). What is written here belongs to it "
        "no more.",
        "Cette conversation continue dans son propre salon : {link} (invités : {count}). Ce qui est écrit ici n'en "
        "fait plus partie.",
    ),
    "room-how": (
        "This whole room is that conversation: what you write stays inside until you !reply or put 📤 on your message. "
        "!room close ends it with a summary.",
        "Tout ce salon est cette conversation : ce que vous écrivez reste interne jusqu'à !reply ou 📤. !room close la "
        "termine avec un résumé.",
    ),
    "room-moved": (
        "This conversation goes on in its own room, {link} What is written here does not belong to it any more.",
        "Cette conversation continue dans son propre salon, {link} Ce qui est écrit ici n'en fait plus partie.",
    ),
    "room-there": (
        "This conversation has a room of its own (!room close in it ends that): {link}",
        "Cette conversation a son propre salon (!room close y met fin) : {link}",
    ),
    "room-begun": ("Its room is being made.", "Son salon est en cours de création."),
    "room-no-item": (
        "There is nothing of a tool here that is mapped to this room. Type !link KEY first.",
        "Rien ici ne vient d'un outil relié à ce salon. Tapez d'abord !link CLÉ.",
    ),
    "room-unmade": (
        "⚠️ The room cannot be made, the conversation stays here: {reason}",
        "⚠️ Le salon ne peut être créé, la conversation reste ici : {reason}",
    ),
    "room-forced-encryption": (
        "the homeserver encrypts every new room, and I cannot read encrypted rooms yet; its administrator can change "
        "that (encryption_enabled_by_default_for_room_type)",
        "le serveur chiffre chaque nouveau salon, et je ne lis pas encore les salons chiffrés ; son administrateur "
        "peut le changer (encryption_enabled_by_default_for_room_type)",
    ),
    "room-not-private": (
        "the homeserver did not make it private",
        "le serveur ne l'a pas rendu privé",
    ),
    "room-no-space": (
        "It is in no space: the configuration names none (rooms.space).",
        "Il n'est dans aucun espace : la configuration n'en nomme aucun (rooms.space).",
    ),
    "room-not-in-space": (
        "⚠️ I could not put it into the space {space}: {reason}. Type /invite {bot} there, and give me the right to "
        "manage its rooms.",
        "⚠️ Je n'ai pas pu le mettre dans l'espace {space} : {reason}. Tapez-y /invite {bot} et donnez-moi le droit "
        "d'en gérer les salons.",
    ),
    "room-no-power": (
        "⚠️ {who} could not be made a moderator: {reason}",
        "⚠️ {who} n'a pu devenir modérateur : {reason}",
    ),
    "room-not-invited": ("⚠️ Could not be invited: {people}", "⚠️ N'ont pu être invités : {people}"),
    "room-absent": (
        "This room sees private notes. Not invited, since they are not in this one: {people}",
        "Ce salon voit les notes privées. Pas invités, car absents d'ici : {people}",
    ),
    "map-own-private": (
        "This whole room is one conversation: it sees private notes where the room does that it came from.",
        "Tout ce salon est une seule conversation : il voit les notes privées si le salon d'où elle vient les voit.",
    ),
    "room-guest": (
        "{who} is not of this company: private notes are not shown here any more, they stay in the tool.",
        "{who} n'est pas de l'entreprise : les notes privées ne sont plus montrées ici, elles restent dans l'outil.",
    ),
    "room-none": (
        "This conversation has no room of its own. !room makes one.",
        "Cette conversation n'a pas son propre salon. !room en crée un.",
    ),
    "room-closing": (
        "A summary is on its way; the room is archived when it has arrived. !cancel stops it.",
        "Un résumé est en route ; le salon est archivé à son arrivée. !cancel l'arrête.",
    ),
    "room-stays": (
        "The summary has not arrived: this room is not archived. Type !room close to try again.",
        "Le résumé n'est pas arrivé : ce salon n'est pas archivé. Tapez !room close pour réessayer.",
    ),
    "room-facts": (
        "This was talked about in a room of its own. Taking part: {people}. Messages: {count}, from {begin} to {end}.",
        "Ceci a été discuté dans son propre salon. Participants : {people}. Messages : {count}, du {begin} au {end}.",
    ),
    "room-facts-none": (
        "This had a room of its own, in which nothing was said.",
        "Ceci avait son propre salon, où rien n'a été dit.",
    ),
    "room-archived": (
        "{who} closed this room: nobody can write here any more. The conversation goes on in {link}",
        "{who} a fermé ce salon : plus personne ne peut y écrire. La conversation continue dans {link}",
    ),
    "room-archived-there": (
        "The conversation goes on here: {who} closed its own room, {link}",
        "La conversation continue ici : {who} a fermé son propre salon, {link}",
    ),
    "room-deserted": (
        "None of us is left here: this room is closed. The conversation goes on in {link}",
        "Il n'y a plus personne de l'entreprise ici : ce salon est fermé. La conversation continue dans {link}",
    ),
    "room-deserted-there": (
        "The conversation goes on here: nobody is left in its own room, {link}",
        "La conversation continue ici : il n'y a plus personne dans son propre salon, {link}",
    ),
    "room-archived-name": ("{name} (archived)", "{name} (archivé)"),
    "room-archived-topic": (
        "Archived. The conversation goes on in {link}",
        "Archivé. La conversation continue dans {link}",
    ),
    "room-not-locked": (
        "⚠️ I could not close it for everybody: {reason}",
        "⚠️ Je n'ai pas pu le fermer pour tous : {reason}",
    ),
    "map-own": (
        "This whole room is one conversation: nothing new can come here. With !map TOOL scope linked, items of that "
        "can be linked here; else map another room.",
        "Tout ce salon est une seule conversation : rien de nouveau ne peut y venir. Avec !map OUTIL partie lié, on "
        "peut y lier des éléments ; sinon reliez un autre salon.",
    ),
    "why-moved": (
        "its conversation has moved to another room",
        "sa conversation est passée dans un autre salon",
    ),
}
