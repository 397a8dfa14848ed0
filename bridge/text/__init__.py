"""Text on its way between tools and Matrix: pure functions from string to string, safe against hostile input."""

from bridge.text.html import html_to_text, matrix_to_html, safe_html
from bridge.text.names import Names
from bridge.text.plain import clean, matrix_to_text, one_line, text_to_html, trim

__all__ = [
    "Names",
    "clean",
    "html_to_text",
    "matrix_to_html",
    "matrix_to_text",
    "one_line",
    "safe_html",
    "text_to_html",
    "trim",
]
