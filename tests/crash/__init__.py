"""Kills the bridge again and again under load both ways, with faults on every side, and counts what is lost."""
