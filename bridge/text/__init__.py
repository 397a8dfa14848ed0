"""Text on its way between mail, tools and Matrix: pure functions from string to string, safe against hostile input."""

from bridge.text.html import html_to_text, matrix_to_mail_html, safe_html
from bridge.text.plain import clean, matrix_to_text, text_to_html, trim, unflow
from bridge.text.quotes import fold, fold_html

__all__ = [
    "clean",
    "fold",
    "fold_html",
    "html_to_text",
    "matrix_to_mail_html",
    "matrix_to_text",
    "safe_html",
    "text_to_html",
    "trim",
    "unflow",
]
