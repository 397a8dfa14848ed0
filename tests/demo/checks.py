"""What must be true in the demo: every fact is counted, and one that fails does not hide the others."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.demo.transcript import Printer


class SceneEnded(Exception):
    """What the rest of the scene needs did not happen; it is counted already."""


@dataclass
class Checks:
    """Facts and failures so far; a scene's facts are printed together at its end."""

    printer: Printer
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    _scene: str = ""
    _facts: list[str] = field(default_factory=list)
    _before: int = 0

    def begin(self, scene: str) -> None:
        self._scene, self._before = scene, len(self.failures)
        self._facts.clear()

    def end(self) -> None:
        """Say what was found true in the scene."""
        if self._facts:
            self.printer.facts(self._facts)

    def that(self, truth: object, fact: str, seen: object = "") -> bool:
        """Count a fact; when it is not true, say what was seen instead."""
        if truth:
            self.passed += 1
            self._facts.append(fact)
        else:
            self.fail(fact, f"{seen}" if seen != "" else "")
        return bool(truth)

    def fail(self, fact: str, seen: str = "") -> None:
        self.failures.append(f"{self._scene}: {fact}")
        self.printer.failure(fact, seen)

    def verdict(self) -> str:
        """The last line of a run."""
        if not self.failures:
            return f"demo: {self.passed} checks passed"
        count = len(self.failures)
        lines = [f"demo: {count} of {self.passed + count} checks failed", *(f"  ✗ {each}" for each in self.failures)]
        return "\n".join(lines)
