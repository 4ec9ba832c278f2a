"""The neutral colours of the plots, which the HTML report recognises and replaces where the reader prefers dark.

They are used for paper, text and lines, and for nothing else.
"""

PAPER = "#fefefe"
INK = "#1c2127"
LINE = "#d4d9df"
