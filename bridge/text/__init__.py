"""Text on its way between tools and Matrix: pure functions from string to string, safe against hostile input."""

from bridge.text.html import html_to_text, matrix_to_html, safe_html
from bridge.text.plain import clean, matrix_to_text, text_to_html, trim

__all__ = [
    "clean",
    "html_to_text",
    "matrix_to_html",
    "matrix_to_text",
    "safe_html",
    "text_to_html",
    "trim",
]
