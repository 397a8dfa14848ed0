"""What the bridge says while somebody tries a mapping with `!test`, in English and French."""

from __future__ import annotations

TRIALS: dict[str, tuple[str, str]] = {
    "test-begins": (
        "Trying {scope} ({connector}), filters: {only}. Each step follows here.",
        "Essai de {scope} ({connector}), filtres : {only}. Chaque étape suit ici.",
    ),
    "test-rights-fine": ("✓ No right is missing here.", "✓ Aucun droit ne manque ici."),
    "test-rights": ("✗ A right is missing here: {rights}", "✗ Il manque un droit ici : {rights}"),
    "test-unknown-rights": (
        "✗ The homeserver did not tell which rights there are here.",
        "✗ Le serveur n'a pas dit quels droits existent ici.",
    ),
    "test-sent": (
        "✓ Sent ({reply}). It should come back within {seconds} s.",
        "✓ Envoyé ({reply}). Le message doit revenir en {seconds} s.",
    ),
    "test-arrived": (
        "✓ It came back after {seconds} s. What comes for {scope} appears like this:",
        "✓ Revenu après {seconds} s. Ce qui arrive pour {scope} apparaît ainsi :",
    ),
    "test-lost": (
        "✗ It has not come back within {seconds} s. {hint}",
        "✗ Le message n'est pas revenu en {seconds} s. {hint}",
    ),
    "test-refused": ("✗ It ends here: {reason}", "✗ L'essai s'arrête ici : {reason}"),
    "test-read": (
        "✓ {connector} says what is new when it is asked ({count} changes now); nothing is written there to try it. "
        "What comes for {scope} appears like this:",
        "✓ {connector} répond quand on demande les nouveautés ({count} en ce moment) ; rien n'y est écrit pour "
        "l'essai. Ce qui arrive pour {scope} apparaît ainsi :",
    ),
    "test-silent": (
        "✓ {connector} speaks first, so the rest shows when it does. What comes for {scope} appears like this:",
        "✓ {connector} parle en premier : la suite se verra alors. Ce qui arrive pour {scope} apparaît ainsi :",
    ),
    "test-message": (
        "This is a test. Nobody outside sees it.",
        "Ceci est un essai. Personne à l'extérieur ne le voit.",
    ),
    "test-unmapped": (
        "Nothing is mapped to this room, so there is nothing to try. !map maps something.",
        "Rien n'est relié à ce salon : il n'y a rien à essayer. !map relie quelque chose.",
    ),
    "test-which": ("Which one? Type: !test and one of {scopes}", "Lequel ? Tapez : !test puis l'un de {scopes}"),
    "help-test": (
        "!test [WHAT] — sends a marked message through a mapping of this room and tells each step",
        "!test [QUOI] — envoie un message marqué par une liaison de ce salon et dit chaque étape",
    ),
}
