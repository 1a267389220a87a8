#!/usr/bin/env python3
"""Expressions, texts, and what RE2 says about each: one JSON object a line.

    python3 corpus.py [--seed N] [--count N] > golden.jsonl

Needs RE2 itself: `pip install google-re2`. A line is {"e": expression, "t": [[text in hexadecimal, matches as a whole], ...]},
or {"e": expression, "error": what RE2 says} for one that it refuses.
"""

import argparse
import json
import random
import sys

try:
    import re2
except ImportError:
    sys.exit("there is no RE2 here: pip install google-re2")

# What reports and manuals have, each with texts that tell readings apart.
WRITTEN = [
    (r"\<a\>", ["a", "<a>", ""]),
    (r"/users/{id}", ["/users/{id}", "/users/id", "/users/7"]),
    (r"/\Qa.b\E/.*", ["/a.b/c", "/axb/c", "/a.b/"]),
    (r"\Qa*b", ["a*b", "aab"]), (r"\Qab\E*", ["a", "abb", "abab", "ab\\E"]), (r"\QQ\\E", ["Q\\", "Q"]),
    (r"\Q\E*", []), (r"a\Q\E*", ["", "aaa"]), (r"a*\Q\E*", ["", "aaa"]), (r"\E", []), (r"a\Eb", []),
    (r"x{,3}", ["x{,3}", "xx"]), (r"x{2", ["x{2"]), (r"{", ["{"]), (r"a{b}", ["a{b}"]), (r"x{01}", ["x{01}", "x"]),
    (r"x{1,02}", ["x{1,02}", "x"]), (r"x{0}", ["", "x"]), (r"x{0,0}y", ["y", "xy"]), (r"{3}", []), (r"x{2,1}", []),
    (r"x{1000}", ["x" * 1000, "x" * 999]), (r"x{1001}", []), (r"(x{100}){100}", []), (r"(?:x{2}){500}", ["x" * 1000]),
    (r"(?:x{2}){501}", []), (r"(?:x*){1000}", ["", "xx"]), (r"((x{10}){10}){10}", ["x" * 1000]), (r"((x{10}){10}){11}", []),
    (r"x{1,}{2}", []), (r"x**", []), (r"x*+", []), (r"x+?", ["x", ""]), (r"x??", ["", "x"]), (r"x{1,2}?", ["x", "xxx"]),
    (r"x*??", []), (r"(?:x*)*", ["", "xxx"]), (r"^*", ["", "^"]), (r"(?:^)*x", ["x"]), (r"$*", [""]), (r"\b+a", ["a"]),
    (r"a|ab", ["ab", "a"]), (r"a||b", ["", "b"]), (r"(|a)*", ["", "aa"]), (r"(|a)+", ["", "aa"]), (r"()", [""]), (r"|", [""]),
    (r"|*", []), (r"(*a)", []), (r"a(|*)", []), (r"*", []), (r"+", []), (r"?", []),
    (r"(?i)beta", ["BETA", "beta", "bet"]), (r"(?i)k", ["k", "K", "\u212a"]), (r"(?i)\x{17f}", ["s", "S", "\u017f"]),
    (r"(?i)straße", ["STRASSE", "straße", "STRAßE", "STRAẞE"]), (r"(?i)é", ["É", "é"]), (r"(?i)[a-c]", ["B", "d"]),
    (r"(?i)[^k]", ["k", "K", "\u212a", "l"]), (r"(?i)\w", ["\u212a", "\u017f", "é"]), (r"(?i)\W", ["\u212a", "é", "-"]),
    (r"(?i)[[:lower:]]", ["A", "\u017f", "1"]), (r"(?i)[[:^upper:]]", ["a", "A", "1"]), (r"a(?i)b|c", ["aB", "AB", "C"]),
    (r"(a(?i)b)c", ["aBc", "aBC"]), (r"(?i:a)b", ["Ab", "AB"]), (r"(?i)a(?-i)b", ["Ab", "AB"]), (r"(?i-s:a.)", ["A\n", "Ab"]),
    (r"(?s).", ["\n", "a"]), (r".", ["\n", "a", "é", "\u2028", "\U0001f600"]), (r"(?-s).", ["\n"]), (r"(?s:.)a", ["\na"]),
    (r"(?m)^a$", ["a", "a\nb", "a\n"]), (r"(?m)^a$\n^b$", ["a\nb"]), (r"a$b", ["ab", "a\nb"]), (r"(?m)a$\nb", ["a\nb"]),
    (r"a\n", ["a\n", "a"]), (r"a$", ["a", "a\n"]), (r"a\z", ["a", "a\n"]), (r"\Aa", ["a"]), (r"b\Aa", ["ba"]), (r"a\Z", []),
    (r"(?U)a+", ["aa"]), (r"(?x)a b", []), (r"(?R)a", []), (r"(?u)a", []), (r"(?)a", ["a"]), (r"(?-)a", []), (r"(?i", []),
    (r"(?i-)a", []), (r"(?--i)a", []), (r"(?ims)a", ["A"]), (r"(?P<n>a)", ["a"]), (r"(?<n>a)", ["a"]), (r"(?P<n>a)(?P<n>b)", []),
    (r"(?P<>a)", []), (r"(?P<n-m>a)", []), (r"(?P<n", []), (r"(?P=n)", []), (r"(?P>n)", []), (r"(?#c)", []), (r"(?>a)", []),
    (r"(?=a)", []), (r"(?!a)", []), (r"(?<=a)", []), (r"(?<!a)", []), (r"/(?!admin).*", []), (r"(a)\1", []), (r"\1", []),
    (r"(?:a", []), (r"a)", []), (r"(", []), (r")", []), (r"a(b", []), (r"a)(b", []), (r"((a)", []),
    (r"[", []), (r"[]", []), (r"[]a]", ["]", "a"]), (r"[^]a]", ["b", "]"]), (r"[a", []), (r"[a-", []), (r"[a-]", ["-", "a"]),
    (r"[-a]", ["-", "a"]), (r"[a-z-9]", ["-", "9", "5", "b"]), (r"[a-a]", ["a"]), (r"[z-a]", []), (r"[a\]b]", ["]", "a"]),
    (r"[\d-z]", ["-", "5", "z", "y"]), (r"[a-\d]", []), (r"[a&&b]", ["&", "a", "b"]), (r"[a--b]", []), (r"[+--]", [",", "-", "+"]),
    (r"[a~~b]", ["~", "a"]), (r"[[a]]", ["a]", "[]"]), (r"[[]", ["["]), (r"[\[]", ["["]), (r"[.]", [".", "a"]), (r"[*+?(){}|^$]", ["*", "^"]),
    (r"[\n]", ["\n"]), (r"[^a]", ["\n", "b", "é"]), (r"[\x41-\x43]", ["B"]), (r"[\101-\103]", ["B"]), (r"[\Q]\E]", []), (r"[\b]", []),
    (r"[\C]", []), (r"[\z]", []), (r"[^\x00-\x{10FFFF}]", ["", "a"]), (r"[\x00-\x{10FFFF}]", ["a", "\n", "é"]), (r"[é-ü]", ["ê", "e"]),
    (r"[[:alpha:]]", ["a", "é", "1"]), (r"[[:^alpha:]]", ["a", "é", "1"]), (r"[^[:alpha:]]", ["1", "a"]), (r"[[:word:]]", ["_", "-"]),
    (r"[[:foo:]]", []), (r"[[:alpha:]", []), (r"[:alpha:]", ["a", ":", "b"]), (r"[[:alpha]]", ["a]", "[]"]), (r"[[.a.]]", ["a]", ".]"]),
    (r"[[=a=]]", ["a]", "=]"]), (r"[[:ascii:]]", ["a", "\x7f", "é"]), (r"[[:blank:]]", [" ", "\t", "\n"]), (r"[[:cntrl:]]", ["\x01", "a"]),
    (r"[[:graph:]]", ["!", " "]), (r"[[:print:]]", [" ", "\t"]), (r"[[:punct:]]", ["!", "a"]), (r"[[:space:]]", ["\x0b", " ", "a"]),
    (r"[[:xdigit:]]", ["f", "g"]), (r"\d\s\w", ["1 a", "1\x0ba", "1\ta", "x a"]), (r"\D\S\W", ["a-!", "éé-"]), (r"\s", ["\x0b", "\x0c", "\u00a0"]),
    (r"\a\f\n\r\t\v", ["\x07\x0c\n\r\t\x0b"]), (r"\x41\x{42}\103", ["ABC"]), (r"\x4", []), (r"\x{}", []), (r"\x{110000}", []), (r"\x{4g}", []),
    (r"\x", []), (r"\x{1F600}", ["\U0001f600"]), (r"\0", ["\x00"]), (r"\08", ["\x008"]), (r"\18", []), (r"\12", ["\n"]), (r"\777", ["\u01ff"]), (r"\8", []),
    (r"\_\-\/\.\@\#\%\&\"\'\~\`\ \,\;\:\!", ["_-/.@#%&\"'~` ,;:!"]), (r"\é", []), (r"\y", []), (r"\h", []), (r"\u0041", []), (r"\G", []),
    (r"\K", []), (r"\N", []), (r"\e", []), (r"\cA", []), (r"\R", []), (r"\X", []), (r"\Q", [""]), ("\\", []), ("a\\", []), ("[\\", []),
    (r"\b", [""]), (r"\B", [""]), (r"a\bb", ["ab"]), (r"a\Bb", ["ab"]), (r"\ba\b", ["a"]), (r"é\bb", ["éb"]), (r"é\Bb", ["éb"]), (r".*\bbot\b.*", ["a bot b", "robot", "bot", "bots"]),
    (r"\C", ["a", "\n", "é"]), (r"\C\C", ["é"]), (r"caf.", ["café", "cafe"]), (r"caf\C", ["café", "cafe"]), (r"\pL", []), (r"\p{Greek}", []), (r"\PN", []),
    (r"[\pL]", []), (r"\p{^Lu}", []), (r"\p", []), (r"\p{", []), (r"\p{Foo}", []), (r"\pX", []),
    (r".*bot.*", ["bot", "a bot b", "bo\nt", "x\nbot", "bot\n", "b"]), (r"(?s).*bot.*", ["x\nbot\n", "bo"]), (r".*(a|b).*|.*c.*", ["xcx", "\nc", "d"]),
    (r".*a\nb.*", ["a\nb", "xa\nby", "\na\nb"]), (r".*", ["", "a", "\n"]), (r".*.*", ["ab"]), (r".*(?:).*", ["", "a\n"]), (r".*\C.*", ["a", ""]),
    (r".*^a.*", ["a", "ba"]), (r".*a$.*", ["a", "ab"]), (r"(?m).*^b.*", ["b", "a\nb"]), (r"^.*bot.*$", ["a bot", "a\nbot"]), (r".+bot.*", ["bot", "abot"]),
    (r"a&&b", ["a&&b"]), (r"a#b", ["a#b"]), (r"a b", ["a b"]), (r"]", ["]"]), (r"}", ["}"]), (r"a]", ["a]"]), (r"-", ["-"]), (r"/", ["/"]),
    (r"(25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)(\.(25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)){3}", ["10.0.0.1", "256.1.1.1", "1.2.3"]),
    (r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", ["6f1a2b3c-4d5e-4f60-8a7b-9c0d1e2f3a4b", "x"]),
    (r"/api/v[0-9]+/.*", ["/api/v1/x", "/api/v/x"]), (r"/[a-z-]+/[0-9]{1,10}(\?.*)?", ["/a-b/12", "/a-b/12?x", "/A/1"]),
    (r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*", ["a.b-c.d", "-a"]),
]

LETTERS = "ab0_-. /<{}é"


class Maker:
    """Random expressions, and texts that they may match."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def literal(self):
        c = self.r.choice(LETTERS + "aabb")
        if c in ".{}" and self.r.random() < 0.6:
            return "\\" + c, lambda: c
        if c == ".":
            return c, lambda: self.r.choice("ab0é-\n")
        return c, lambda: c

    def char_class(self):
        members = self.r.sample(["a", "b", "a-b", "0-9", r"\d", r"\w", r"\s", r"\D", r"\W", "[:alpha:]", "[:^digit:]", "é", "-", r"\]", "A-Z", ".", "&&", r"\x41", "<-{"], self.r.randint(1, 3))
        negated = "^" if self.r.random() < 0.3 else ""
        text = "[" + negated + "".join(members) + "]"
        return text, lambda: self.r.choice("ab0_-. éAZ\n]&<{")

    def atom(self, depth):
        kind = self.r.random()
        if kind < 0.45:
            return self.literal()
        if kind < 0.6:
            return self.char_class()
        if kind < 0.7:
            c = self.r.choice([r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", ".", r"\C", r"\n", r"\x{e9}", r"\141", r"\Qa.b\E", r"\Q{\E"])
            return c, lambda: self.r.choice(["a", "0", " ", "é", "\n", "-", "a.b", "{"])
        if kind < 0.76:
            return self.r.choice([r"\b", r"\B", "^", "$", r"\A", r"\z", "(?m:^)", "(?m:$)"]), lambda: ""
        if depth == 0:
            return self.literal()
        inner, sample = self.alternation(depth - 1)
        opening = self.r.choice(["(", "(?:", "(?i:", "(?s:", "(?m:", "(?i)(", "(?P<n%d>" % self.r.randrange(9), "(?U:", "(?is-m:"])
        return opening + inner + ")", sample

    def repeated(self, depth):
        inner, sample = self.atom(depth)
        if self.r.random() < 0.6:
            return inner, sample
        operator, low, high = self.r.choice([("*", 0, 3), ("+", 1, 3), ("?", 0, 1), ("{2}", 2, 2), ("{1,3}", 1, 3), ("{2,}", 2, 4), ("{0,2}", 0, 2), ("*?", 0, 2), ("{,2}", 1, 1), ("{1", 1, 1), ("{0}", 0, 0)])
        return inner + operator, lambda: "".join(sample() for _ in range(self.r.randint(low, high)))

    def concatenation(self, depth):
        parts = [self.repeated(depth) for _ in range(self.r.randint(1, 4))]
        if self.r.random() < 0.15:
            parts.insert(0, (".*", lambda: self.r.choice(["", "a", "é "])))
            if self.r.random() < 0.7:
                parts.append((".*", lambda: self.r.choice(["", "b", "\n"])))
        return "".join(text for text, _ in parts), lambda: "".join(sample() for _, sample in parts)

    def alternation(self, depth):
        branches = [self.concatenation(depth) for _ in range(self.r.choice([1, 1, 1, 2, 3]))]
        return "|".join(text for text, _ in branches), lambda: self.r.choice(branches)[1]()

    def expression(self):
        text, sample = self.alternation(2)
        if self.r.random() < 0.15:
            text = self.r.choice(["(?i)", "(?s)", "(?m)", "(?is)", "(?U)"]) + text
        # One in ten is damaged: what RE2 refuses counts as well.
        if self.r.random() < 0.1:
            at = self.r.randrange(len(text) + 1)
            text = text[:at] + self.r.choice(list("()[]{}*+?|\\^$-:&<") + ["\\Q", "(?", "[:", "{2}", "\\p", "**"]) + text[at + self.r.randint(0, 1):]
        return text, sample

    def texts(self, sample):
        made = {sample() for _ in range(6)}
        for text in list(made)[:3]:
            changed = list(text)
            if changed:
                changed[self.r.randrange(len(changed))] = self.r.choice("ab0_-. é\nAB<{")
            made.add("".join(changed))
            made.add(text.swapcase())
        made |= {"", self.r.choice(["a", "ab", "é", "\n"])}
        return sorted(made)


def line(expression, texts):
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(expression, options)
    except re2.error as error:
        return {"e": expression, "error": error.args[0].decode("utf-8", "replace")}
    encoded = [text.encode() for text in texts]
    # Bytes that are no UTF-8.
    encoded += [b"\xff", b"a\xc3", b"\x80b"]
    return {"e": expression, "t": [[text.hex(), 1 if compiled.fullmatch(text) else 0] for text in encoded]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2500)
    arguments = parser.parse_args()
    maker = Maker(arguments.seed)
    lines = [line(expression, texts) for expression, texts in WRITTEN]
    seen = {expression for expression, _ in WRITTEN}
    while len(seen) < len(WRITTEN) + arguments.count:
        expression, sample = maker.expression()
        if expression not in seen and len(expression) < 200:
            seen.add(expression)
            lines.append(line(expression, maker.texts(sample)))
    for found in lines:
        print(json.dumps(found, ensure_ascii=True, separators=(",", ":")))


if __name__ == "__main__":
    main()
