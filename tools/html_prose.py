#!/usr/bin/env python3
"""Takes the running prose out of HTML manuals: their paragraphs, without menus, tables, headings and program listings."""
from html.parser import HTMLParser
from pathlib import Path

from support import InvalidInput, Parser, check_out, read_text, run, write_whole

SHORTEST = 80  # characters; shorter paragraphs are mostly captions and "see also"
LEFT_OUT = {"pre", "script", "style", "table", "title", "head"}


class Paragraphs(HTMLParser):
    """Collects the text of each <p>, blanks collapsed, outside of LEFT_OUT."""

    def __init__(self):
        super().__init__()
        self.found, self.parts, self.left_out = [], None, 0

    def handle_starttag(self, tag, attrs):
        if tag in LEFT_OUT:
            self.left_out += 1
        elif tag == "p":
            self.end_paragraph()
            self.parts = []

    def handle_endtag(self, tag):
        if tag in LEFT_OUT:
            self.left_out = max(0, self.left_out - 1)
        elif tag in ("p", "div", "body"):
            self.end_paragraph()

    def handle_data(self, data):
        if self.parts is not None and not self.left_out:
            self.parts.append(data)

    def end_paragraph(self):
        text = " ".join("".join(self.parts or []).split())
        if len(text) >= SHORTEST:
            self.found.append(text)
        self.parts = None


def paragraphs_of(html):
    parser = Paragraphs()
    parser.feed(html)
    parser.close()
    parser.end_paragraph()
    return parser.found


def main():
    parser = Parser(description="Writes the paragraphs of HTML files as plain text, a blank line between them.")
    parser.add_argument("files", nargs="+", metavar="FILE.html")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.txt")
    options = parser.parse_args()
    check_out(options.out)
    paragraphs = dict.fromkeys(text for file in options.files for text in paragraphs_of(read_text(file)))  # each once
    if not paragraphs:
        raise InvalidInput(f"{', '.join(options.files)}: no paragraph of at least {SHORTEST} characters")
    write_whole(options.out, ("\n\n".join(paragraphs) + "\n").encode())
    print(f"{options.out}: {len(paragraphs):,} paragraphs")


if __name__ == "__main__":
    run(main)
