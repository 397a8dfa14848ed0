"""What the bridge says to people who look for something, and about their accounts in tools, in English and French."""

from __future__ import annotations

FINDING: dict[str, tuple[str, str]] = {
    "help-find": (
        "!find words — looks for them in the tools and conversations of this room (in a direct chat with me: of yours)",
        "!find mots — les cherche dans les outils et conversations de ce salon (en tête-à-tête avec moi : des vôtres)",
    ),
    "find-usage": (
        "What shall I look for? Type: !find and the words, for example !find printer invoice",
        "Que dois-je chercher ? Tapez : !find suivi des mots, par exemple !find imprimante facture",
    ),
    "find-short": (
        "That is too little to look for: one of the words needs at least two letters.",
        "C'est trop peu pour chercher : l'un des mots doit avoir au moins deux lettres.",
    ),
    "find-long": (
        "That is too much to look for: at most {words} words of at most {letters} letters each, please.",
        "C'est trop pour chercher : au plus {words} mots de {letters} lettres au plus chacun, s'il vous plaît.",
    ),
    "find-busy": (
        "I am still looking for what you asked before: one moment, please.",
        "Je cherche encore ce que vous avez demandé avant : un instant, s'il vous plaît.",
    ),
    "find-often": (
        "You have asked {times} times within a minute. Please try again in {seconds} s.",
        "Vous avez demandé {times} fois en une minute. Réessayez dans {seconds} s, s'il vous plaît.",
    ),
    "find-nothing": (
        "Nothing here has all of these words.",
        "Rien ici ne contient tous ces mots.",
    ),
    "find-nowhere": (
        "Nothing is mapped to this room, so there is nothing to look through. Ask in a mapped room, or in a direct "
        "chat with me (only you and me, not encrypted).",
        "Rien n'est relié à ce salon : il n'y a rien à parcourir. Demandez dans un salon relié, ou en tête-à-tête avec "
        "moi (vous et moi seulement, sans chiffrement).",
    ),
    "find-no-rooms": (
        "You are in no room that something is mapped to, so there is nothing to look through.",
        "Vous n'êtes dans aucun salon relié : il n'y a rien à parcourir.",
    ),
    "find-more": ("… and more", "… et d'autres"),
    "find-thread": ("thread", "fil"),
    "find-silent": ("⚠️ {connector} does not answer", "⚠️ {connector} ne répond pas"),
    "find-refused": ("⚠️ {connector} says no: {reason}", "⚠️ {connector} refuse : {reason}"),
    "find-unheard": (
        "⚠️ the homeserver does not say what was written; conversations are found by title and people only",
        "⚠️ le serveur ne dit pas ce qui a été écrit ; les conversations sont trouvées par titre et personnes seulement",
    ),
    "find-untitled": (
        "⚠️ there are too many conversations to look through all their titles in time",
        "⚠️ il y a trop de conversations pour parcourir à temps tous leurs titres",
    ),
    "find-broken": (
        "I was interrupted and have not found out. Please ask again: !find {words}",
        "J'ai été interrompu et n'ai rien trouvé. Demandez encore, s'il vous plaît : !find {words}",
    ),
    "help-me": ("!me — your accounts in the tools", "!me — vos comptes dans les outils"),
    "account": ("{connector}: you are {account}", "{connector} : vous êtes {account}"),
    "account-declared": (
        "{connector}: you are {account} (set by an administrator: cannot be changed here)",
        "{connector} : vous êtes {account} (fixé par un administrateur : ne peut être changé ici)",
    ),
    "account-unknown": (
        "{connector}: I do not know who you are. Type: !me {connector} account",
        "{connector} : je ne sais pas qui vous êtes. Tapez : !me {connector} compte",
    ),
    "account-fixed": (
        "Your account in {connector} is {account}, set by an administrator: it cannot be changed here.",
        "Votre compte dans {connector} est {account}, fixé par un administrateur : il ne peut être changé ici.",
    ),
    "account-others": (
        "{account} in {connector} is somebody else's: an administrator has set that.",
        "{account} dans {connector} est à quelqu'un d'autre : un administrateur l'a fixé.",
    ),
    "account-unprovable": (
        "Nobody can write a code into {connector}: an administrator can set your account there, under `people` in the "
        "configuration.",
        "Personne ne peut écrire de code dans {connector} : un administrateur peut y fixer votre compte, sous `people` "
        "dans la configuration.",
    ),
    "me-usage": (
        "Type: !me TOOL account (or !me TOOL - to forget it), where TOOL is one of: {connectors}",
        "Tapez : !me OUTIL compte (ou !me OUTIL - pour l'oublier) ; OUTIL parmi : {connectors}",
    ),
    "no-accounts": (
        "I know no account of yours, and there is no tool here in which you could prove one.",
        "Je ne connais aucun compte à vous, et aucun outil ici ne permet d'en prouver un.",
    ),
    "account-code": (
        "To prove that {account} in {connector} is you, write this there, in a message of that account, within an "
        "hour: {code}",
        "Pour prouver que {account} dans {connector} est à vous, écrivez-y ceci, dans un message de ce compte, sous "
        "une heure : {code}",
    ),
    "account-linked": (
        "You are {account} in {connector}: what you send there is sent as you.",
        "Vous êtes {account} dans {connector} : ce que vous y envoyez l'est en votre nom.",
    ),
    "account-forgotten": ("I know no account of yours in {connector} now.", "Votre compte {connector} est oublié."),
}
