"""Every sentence the bridge says to people, in English and French."""

from __future__ import annotations

from bridge.texts.cards import CARDS
from bridge.texts.finding import FINDING
from bridge.texts.mappings import MAPPINGS
from bridge.texts.rooms import ROOMS
from bridge.texts.trials import TRIALS

CATALOGUE: dict[str, tuple[str, str]] = {
    **CARDS,
    **FINDING,
    **ROOMS,
    **TRIALS,
    # arrivals
    "no-words": ("(no text)", "(pas de texte)"),
    "no-subject": ("(no subject)", "(sans objet)"),
    "folded": (
        "… {lines} quoted lines folded; !original shows the whole message",
        "… {lines} lignes citées repliées ; !original montre le message entier",
    ),
    "long": ("… shortened; the whole text is in the file below", "… abrégé ; le texte entier est dans le fichier"),
    "problem": (
        "⚠️ Part of this message could not be read: {problem}. !original gives what is kept of it.",
        "⚠️ Une partie de ce message est illisible : {problem}. !original donne ce qui en est conservé.",
    ),
    "stranger": (
        "⚠️ {sender} is not part of this conversation so far; the message below only refers to it. An answer goes to "
        "them only if you reply to that very message with !reply.",
        "⚠️ {sender} ne fait pas partie de cette conversation ; le message ci-dessous y fait seulement référence. Une "
        "réponse ne lui parvient que si vous répondez à ce message précis avec !reply.",
    ),
    "automatic": ("🤖 Automatic message", "🤖 Message automatique"),
    "elsewhere": ("This message is also in {rooms}.", "Ce message est aussi dans {rooms}."),
    "related": ("Related conversation: {links}", "Conversation liée : {links}"),
    "unshown": (
        "⚠️ A message from {sender} cannot be shown here: {reason}. !original gives it as it came.",
        "⚠️ Un message de {sender} ne peut être montré ici : {reason}. !original le donne tel quel.",
    ),
    "file-too-large": (
        "⚠️ The file {name} ({size}) cannot be shown here: {reason}. !original has it.",
        "⚠️ Le fichier {name} ({size}) ne peut être montré ici : {reason}. !original le contient.",
    ),
    # outward
    "preview": ("📤 To: {to}", "📤 À : {to}"),
    "preview-cc": ("Cc: {cc}", "Cc : {cc}"),
    "preview-subject": ("Subject: {subject}", "Objet : {subject}"),
    "preview-files": ("Files: {files}", "Fichiers : {files}"),
    "preview-link": ("With a link back: {link}", "Avec un lien de retour : {link}"),
    "preview-long": (
        "The whole text is in the file above: please read it before it leaves.",
        "Le texte entier est dans le fichier ci-dessus : lisez-le avant qu'il parte.",
    ),
    "preview-hold": (
        "Leaves in {seconds} s. ❌ or !cancel stops it; editing your message changes it.",
        "Part dans {seconds} s. ❌ ou !cancel l'arrête ; modifier votre message le change.",
    ),
    "preview-paused": (
        "Paused: {why}. !send sends it, ❌ or !cancel drops it.",
        "En pause : {why}. !send l'envoie, ❌ ou !cancel l'abandonne.",
    ),
    "why-new-message": (
        "a new message from outside arrived meanwhile",
        "un nouveau message extérieur est arrivé entre-temps",
    ),
    "why-old": ("it was asked {minutes} minutes ago", "la demande date d'il y a {minutes} minutes"),
    "why-often": (
        "{count} messages went from {scope} to {address} within 10 minutes",
        "{count} messages sont partis de {scope} vers {address} en 10 minutes",
    ),
    "why-restored": (
        "the bridge was restored from a backup of {made}, and this may have left before that",
        "la passerelle a été restaurée depuis une sauvegarde du {made}, et ceci est peut-être parti avant",
    ),
    "typed-before-restore": (
        "This was typed before the bridge was restored from a backup of {made}, and may have been done then. If it was "
        "not, type it again.",
        "Ceci a été tapé avant que la passerelle soit restaurée depuis une sauvegarde du {made}, et a peut-être été "
        "fait alors. Sinon, retapez-le.",
    ),
    "left-before-restore": (
        "✉️ This had left before the bridge was restored from a backup.",
        "✉️ Ceci était parti avant que la passerelle soit restaurée depuis une sauvegarde.",
    ),
    "preview-cancelled": ("✖️ Not sent: cancelled.", "✖️ Non envoyé : annulé."),
    "preview-sent": ("✉️ Accepted by {connector} for {to}.", "✉️ Accepté par {connector} pour {to}."),
    "preview-made": ("✉️ {connector} has made {key} of it.", "✉️ {connector} en a fait {key}."),
    "preview-waiting": (
        "Not yet for {to}: their server asked to come again later.",
        "Pas encore pour {to} : leur serveur demande de revenir plus tard.",
    ),
    "preview-deferred": (
        "⏳ {connector} asks to wait: {reason}. It is tried again by itself; ❌ or !cancel stops it.",
        "⏳ {connector} demande d'attendre : {reason}. Nouvel essai automatique ; ❌ ou !cancel l'arrête.",
    ),
    "preview-stopped": (
        "✖️ Stopped for {others}. {to} have it already.",
        "✖️ Arrêté pour {others}. {to} l'ont déjà.",
    ),
    "preview-newer": ("✏️ Changed: see the newer preview below.", "✏️ Modifié : voir l'aperçu plus récent ci-dessous."),
    "spoiled": (
        "✖️ Not sent: a message or file that it contains was changed or taken back. Ask again to send it as it is now.",
        "✖️ Non envoyé : un message ou fichier qu'il contient a été modifié ou retiré. Redemandez l'envoi tel quel.",
    ),
    "part-gone": (
        "a message or file that it contains was taken back. Ask again to send it as it is now",
        "un message ou fichier qu'il contient a été retiré. Redemandez l'envoi tel quel",
    ),
    "partly-refused": ("⚠️ Not accepted for {address}: {reason}", "⚠️ Refusé pour {address} : {reason}"),
    "failed": (
        "⚠️ Not sent to {to}: {reason}\n!retry asks to send it again.",
        "⚠️ Non envoyé à {to} : {reason}\n!retry demande un nouvel envoi.",
    ),
    "failed-perhaps": (
        "⚠️ Not confirmed for {to}, perhaps sent: {reason}\n!retry asks to send it again, as the same message.",
        "⚠️ Non confirmé pour {to}, peut-être parti : {reason}\n!retry demande un nouvel envoi, du même message.",
    ),
    "bounced": (
        "⚠️ This message did not reach {recipient}: {reason}",
        "⚠️ Ce message n'est pas parvenu à {recipient} : {reason}",
    ),
    "left-already": (
        "This message has left already (or may have): the change stays inside.",
        "Ce message est déjà parti (ou l'est peut-être) : la modification reste interne.",
    ),
    "started": (
        "✉️ This thread continues with {to} from {scope}. Nothing has left yet: !reply text or 📤 sends.",
        "✉️ Ce fil continue avec {to} depuis {scope}. Rien n'est parti : !reply texte ou 📤 envoie.",
    ),
    "transcript-heading": ("Conversation so far:", "Conversation jusqu'ici :"),
    "content-gone": ("the message is no longer there", "le message n'existe plus"),
    "content-not-yours": ("one sends one's own messages", "chacun envoie ses propres messages"),
    "content-none": (
        "the message has no words or file that could be sent",
        "le message n'a ni texte ni fichier à envoyer",
    ),
    "content-type": ("a message of type {type} cannot be sent", "un message de type {type} ne peut être envoyé"),
    "file-unreadable": (
        "{name} cannot be read from the homeserver ({reason})",
        "{name} est illisible sur le serveur ({reason})",
    ),
    "history-unreadable": (
        "the conversation so far cannot be read ({reason})",
        "la conversation est illisible ({reason})",
    ),
    # commands
    "not-allowed": (
        "Only people of this company may do that ({who} may not).",
        "Seules les personnes de l'entreprise le peuvent ({who} ne le peut pas).",
    ),
    "unknown-command": (
        "I do not know !{command}. !help lists what you can type.",
        "Je ne connais pas !{command}. !help liste les commandes.",
    ),
    "not-a-conversation": (
        "!{command} belongs in the thread of a conversation. Type it in that thread.",
        "!{command} se tape dans le fil d'une conversation.",
    ),
    "nothing-outward": (
        "Nobody outside is part of this thread yet. {start} starts.",
        "Personne d'extérieur n'est dans ce fil. {start} commence.",
    ),
    "thread-elsewhere": (
        "That thread belongs to another room. Type it there.",
        "Ce fil appartient à un autre salon. Tapez-le là-bas.",
    ),
    "which-item": (
        "This conversation goes to several places: {items}. Reply to a message of the one you mean, and type it again.",
        "Cette conversation va à plusieurs endroits : {items}. Répondez à un message de celui visé, puis retapez.",
    ),
    "nothing-to-say": (
        "What should leave? Type !reply followed by the text, or put 📤 on your message.",
        "Que faut-il envoyer ? Tapez !reply suivi du texte, ou mettez 📤 sur votre message.",
    ),
    "cannot-answer": ("This cannot be answered: {reason}", "Impossible de répondre : {reason}"),
    "not-yours": (
        "Only {author} can send this: one sends one's own messages.",
        "Seul {author} peut envoyer ceci : chacun envoie ses propres messages.",
    ),
    "nothing-held": ("Nothing is waiting to leave here.", "Rien n'attend de partir ici."),
    "nothing-failed": ("Nothing failed here.", "Rien n'a échoué ici."),
    "retrying": ("Trying again ({count}).", "Nouvel essai ({count})."),
    "no-original": ("No message from outside is known here.", "Aucun message extérieur n'est connu ici."),
    "original-gone": (
        "The original is no longer kept (retention is over).",
        "L'original n'est plus conservé (durée de conservation écoulée).",
    ),
    "no-scope": (
        "This room is not mapped to anything that !{command} can send from. Ask an administrator to map it.",
        "Ce salon n'est relié à rien d'où !{command} puisse envoyer. Demandez à un administrateur.",
    ),
    "which-scope": (
        "This room has several: {scopes}. Type: !{command} from {example} …",
        "Ce salon en a plusieurs : {scopes}. Tapez : !{command} from {example} …",
    ),
    "start-usage": (
        "Type: !{command} {usage} — the lines that follow are the text. Without them nothing leaves yet. Add “with "
        "history” before the title to send the conversation so far ({reason}).",
        "Tapez : !{command} {usage} — les lignes suivantes sont le texte. Sans elles rien ne part. « with history » "
        "avant le titre ajoute la conversation ({reason}).",
    ),
    "make-usage": (
        "What should be in it? Type !{command} in a thread, in reply to a message, or with the text on the next lines.",
        "Que faut-il y mettre ? Tapez !{command} dans un fil, en réponse à un message, ou avec le texte aux lignes "
        "suivantes.",
    ),
    "made-already": (
        "This conversation has one already: {title}. Type: !{command} again … to make another.",
        "Cette conversation en a déjà un : {title}. Tapez : !{command} again … pour en faire un autre.",
    ),
    "link-usage": (
        "“{text}” names nothing in the tools of this room. Type: !link KEY or !link https://…",
        "« {text} » ne désigne rien dans les outils de ce salon. Tapez : !link CLÉ ou !link https://…",
    ),
    "link-which": (
        "“{text}” may be in {tools}. Type !link and its web address.",
        "« {text} » peut être dans {tools}. Tapez !link et son adresse web.",
    ),
    "not-linked": (
        "Nothing of a tool is linked here that this could be about. Type: !link KEY",
        "Rien n'est lié ici à quoi cela puisse s'appliquer. Tapez : !link CLÉ",
    ),
    "only-shown": (
        "{key} is only shown here. Type !link {key} first, then again.",
        "{key} est seulement montré ici. Tapez d'abord !link {key}, puis recommencez.",
    ),
    "unlinked": ("{title} is no longer followed here.", "{title} n'est plus suivi ici."),
    "change-usage": ("Type: !{word} {usage}", "Tapez : !{word} {usage}"),
    "tool-refused": ("⚠️ {connector} says no: {reason}", "⚠️ {connector} refuse : {reason}"),
    "who-are-you": (
        "I do not know who you are in {connector}. Type: !me {connector} account",
        "Je ne sais pas qui vous êtes dans {connector}. Tapez : !me {connector} compte",
    ),
    "history-needs-thread": (
        "There is no thread here. Type it in the thread, or say how many messages: with history 10",
        "Il n'y a pas de fil ici. Tapez-le dans le fil, ou dites combien de messages : with history 10",
    ),
    "domain-not-allowed": (
        "Messages may not go to {address}: only to {domains}.",
        "Rien ne peut partir vers {address} : seulement vers {domains}.",
    ),
    "too-much": ("The files are {size} together; at most {limit} may leave.", "Fichiers : {size} ; au plus {limit}."),
    "hello": (
        "I tie this room to business tools. Here: {scopes}. What comes from outside starts a thread; what you write in "
        "it stays inside until you !reply or put 📤 on your message. !help says more.",
        "Je relie ce salon aux outils de travail. Ici : {scopes}. Ce qui vient de l'extérieur ouvre un fil ; ce que "
        "vous y écrivez reste interne jusqu'à !reply ou 📤. !help en dit plus.",
    ),
    "hello-management": (
        "I tell operators here what needs a person: what could not be delivered, and who does not answer.",
        "Je signale ici aux opérateurs ce qui demande une personne : envois impossibles, serveurs muets.",
    ),
    "hello-unmapped": (
        "I tie rooms to business tools. This room is not mapped yet: !map says what can appear here, or an "
        "administrator adds it under “mappings” in the configuration ({room}).",
        "Je relie des salons aux outils de travail. Ce salon n'est pas encore relié : !map dit ce qui peut y "
        "apparaître, ou un administrateur l'ajoute sous « mappings » dans la configuration ({room}).",
    ),
    "encrypted": (
        "⚠️ This room is encrypted now and I cannot read encrypted rooms yet: nothing is carried either way. What "
        "arrives from outside waits. Map another room to go on.",
        "⚠️ Ce salon est maintenant chiffré et je ne lis pas encore les salons chiffrés : rien ne passe. Ce qui arrive "
        "attend. Reliez un autre salon.",
    ),
    "lacks-right": (
        "⚠️ A right is missing here: {right}. Someone with power to change settings can grant it.",
        "⚠️ Il manque un droit ici : {right}. Une personne habilitée peut l'accorder.",
    ),
    "lacks-rights": (
        "⚠️ In {room} a right is missing: {rights}. Someone with power to change settings there can grant it.",
        "⚠️ Dans {room} il manque un droit : {rights}. Une personne habilitée peut l'accorder.",
    ),
    "right-speak": ("for me to send messages", "pour moi, envoyer des messages"),
    "right-react": (
        "for me to react (⏳ ✉️ ⚠️ show where a message stands)",
        "pour moi, réagir (⏳ ✉️ ⚠️ montrent où en est un message)",
    ),
    "right-invite": (
        "for me to invite (so that senders appear by name)",
        "pour moi, inviter (pour montrer les expéditeurs)",
    ),
    "right-ghosts": (
        "for everybody to send messages (people outside appear as users without special power)",
        "pour tous, envoyer des messages (les gens de l'extérieur sont des utilisateurs sans pouvoir particulier)",
    ),
    "right-announce": (
        "for me to change settings (that is how other programs see what this room is tied to)",
        "pour moi, modifier les paramètres (ainsi d'autres programmes voient à quoi ce salon est relié)",
    ),
    # operators
    "down": (
        "⚠️ {destination} does not answer: {reason}. Deliveries wait.",
        "⚠️ {destination} ne répond pas : {reason}.",
    ),
    "connector-gone": (
        "{connector} is not configured any more: nothing goes there",
        "{connector} n'est plus configuré : rien n'y part",
    ),
    "up": ("✅ {destination} answers again.", "✅ {destination} répond à nouveau."),
    "dead-letter": (
        "⚠️ Given up: {kind} to {destination} in {room}: {reason} (passerelle dead-letters show {uid})",
        "⚠️ Abandonné : {kind} vers {destination} dans {room} : {reason} (passerelle dead-letters show {uid})",
    ),
    "event-failed": (
        "⚠️ An event in {room} could not be understood and is kept: {reason} (passerelle dead-letters show {uid})",
        "⚠️ Un événement dans {room} n'a pu être compris et est conservé : {reason} (dead-letters show {uid})",
    ),
    "envelope-failed": (
        "⚠️ Something from {connector} could not be understood and is kept: {reason} (dead-letters show {uid})",
        "⚠️ Un message de {connector} n'a pu être compris et est conservé : {reason} (dead-letters show {uid})",
    ),
    # help
    "help": ("In a thread:", "Dans un fil :"),
    "help-reply": (
        "!reply text — answers the outside (in a rich reply: that message); also 📤 on your own message",
        "!reply texte — répond à l'extérieur (en réponse : à ce message) ; ou 📤 sur votre message",
    ),
    "help-start": (
        "!{command} {usage}, then the text on the next lines — takes this conversation there; “with history” before "
        "the title sends what was said",
        "!{command} {usage}, puis le texte aux lignes suivantes — y porte cette conversation ; « with history » avant "
        "le titre envoie ce qui a été dit",
    ),
    "help-change": ("!{word} {usage} — changes what is linked here", "!{word} {usage} — modifie ce qui est lié ici"),
    "help-link": (
        "!link KEY — from now on this thread hears of that item; !unlink ends it",
        "!link CLÉ — ce fil suit désormais cet élément ; !unlink y met fin",
    ),
    "help-unlink": ("!unlink [KEY] — ends that", "!unlink [CLÉ] — y met fin"),
    "help-send": ("!send — sends what is paused", "!send — envoie ce qui est en pause"),
    "help-cancel": ("!cancel — stops what is waiting to leave; also ❌", "!cancel — arrête ce qui attend ; ou ❌"),
    "help-retry": ("!retry — tries what failed again", "!retry — réessaie ce qui a échoué"),
    "help-original": (
        "!original — the message as it came, whole (in a rich reply: that one)",
        "!original — le message tel qu'il est arrivé (en réponse : celui-là)",
    ),
    "help-help": ("!help — this list", "!help — cette liste"),
    "help-inside": (
        "Everything else you write stays inside.",
        "Tout le reste de ce que vous écrivez reste interne.",
    ),
} | MAPPINGS


class Texts:
    """The sentences of one language."""

    def __init__(self, language: str) -> None:
        self._column = {"en": 0, "fr": 1}[language]

    def __call__(self, key: str, /, **values: object) -> str:
        return CATALOGUE[key][self._column].format(**values)
