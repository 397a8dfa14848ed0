"""Passerelle's hub: it carries messages between Matrix rooms and tools, and knows no tool by name."""

__version__ = "0.1.0"
