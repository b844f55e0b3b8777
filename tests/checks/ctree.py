# SPDX-License-Identifier: LGPL-2.1-or-later
"""Just enough of C's grammar to measure functions: where they begin and end, their parameters, and
how deep their statements nest. For code in the layout that clang-format gives us (a function's
braces stand in the first column)."""

import re
from dataclasses import dataclass

TOKEN = re.compile(r"[A-Za-z_]\w*|[{}();,:?]|[^\s\w{}();,:?]+|\d\w*")
NOISE = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
CONTROL = {"if", "for", "while", "switch"}


@dataclass
class Function:
    name: str
    line: int       # of the opening brace
    lines: int      # between the braces
    parameters: int # inputs
    nesting: int
    cases: int      # lines of the body that are case labels


def blank(text):
    """The text without comments, literals and preprocessor lines; line numbers stay."""
    text = NOISE.sub(lambda m: "\n" * m[0].count("\n") if m[0][0] == "/" else '""' + "\n" * m[0].count("\n"), text)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: "\n" * m[0].count("\n"), text, flags=re.MULTILINE)
    return text


class Nesting:
    """Depth of control statements in a body; `else if` does not count as deeper."""

    def __init__(self, body):
        self.tokens = TOKEN.findall(body)
        self.at = 0
        self.deepest = 0
        while self.at < len(self.tokens):
            self.statement(0)

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def parentheses(self):
        depth = 0
        while self.at < len(self.tokens):
            depth += {"(": 1, ")": -1}.get(self.tokens[self.at], 0)
            self.at += 1
            if depth == 0:
                return

    def inner(self, depth):
        self.deepest = max(self.deepest, depth)
        self.statement(depth)

    def block(self, depth):
        self.at += 1
        while self.peek() not in (None, "}"):
            self.statement(depth)
        self.at += 1

    def control(self, depth):
        self.at += 1
        self.parentheses()
        self.inner(depth + 1)
        if self.peek() == "else":
            self.at += 1
            if self.peek() == "if":
                self.control(depth)
            else:
                self.inner(depth + 1)

    def statement(self, depth):
        token = self.peek()
        if token == "{":
            self.block(depth)
        elif token in CONTROL:
            self.control(depth)
        elif token == "do":
            self.at += 1
            self.inner(depth + 1)
            self.simple()
        elif token == "}":      # unbalanced: not code we understand
            self.at += 1
        else:
            self.simple()

    def simple(self):
        """Up to the semicolon, or to the colon of a label; initialisers may hold braces."""
        depth, question = 0, 0
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(token, 0)
            question += {"?": 1, ":": -1}.get(token, 0)
            if depth == 0 and (token == ";" or question < 0):
                return


def parameters(signature):
    """The function's name and the names of its inputs, from `... name(int a, int *ret)`. Outputs (ret,
    ret_x, diag) are how we spell further return values, and do not count."""
    signature = re.sub(r"__attribute__\(\(.*?\)\)", "", signature)
    opening = re.search(r"([A-Za-z_]\w*)\s*\(", signature)
    if not opening:
        return None, []
    depth, pieces = 0, [""]
    for character in signature[opening.end() - 1:]:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            break
        if depth == 1 and character == ",":
            pieces.append("")
        else:
            pieces[-1] += character
    # the last word outside of a callback's own parameters, or the word in (*word)
    names = [re.findall(r"\(\*(\w+)\)|(\b[A-Za-z_]\w*)", piece) for piece in pieces]
    names = [next((a for a, _ in found if a), found[-1][1]) for found in names if found]
    return opening[1], [name for name in names if not re.fullmatch(r"void|diag|ret(_\w+)?", name)]


def functions(text):
    lines = blank(text).split("\n")
    start = None
    for number, line in enumerate(lines, 1):
        if line.startswith("{"):
            start = number
        elif line.startswith("}") and start:
            signature = []
            for before in reversed(lines[:start - 1]):
                if not before.strip() or before.rstrip().endswith((";", "}")):
                    break
                signature.insert(0, before)
            name, inputs = parameters(" ".join(signature))
            body = lines[start:number - 1]
            if name:
                cases = sum(bool(re.match(r"\s*(case\b|default:)", inner)) for inner in body)
                yield Function(name, start, len(body), len(inputs), Nesting("\n".join(body)).deepest, cases)
            start = None
