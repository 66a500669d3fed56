#!/usr/bin/env python3
"""Fails where modules of a crate depend on each other in a circle: scripts/module-cycles.py SRC...

A module is a file. It depends on the files whose items its `use` lines and paths name; re-exports are followed to where an
item is defined. Two things do not count: tests, and a module's use of the modules that it lies in, which are one room with
it for everybody outside.
"""

import re
import sys
from pathlib import Path

PATH = re.compile(r"(?<![\w:$])((?:crate|self|super|[a-z_][a-z0-9_]*)(?:::[A-Za-z_][A-Za-z0-9_]*)+)")


def code(text: str) -> str:
    """The text without comments, strings, and `#[cfg(test)]` items."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r'r#"[\s\S]*?"#|"(?:\\[\s\S]|[^"\\])*"', '""', text)
    text = re.sub(r"'(?:\\.|[^'\\])'", "''", text)
    while (at := text.find("#[cfg(test)]")) >= 0:
        depth, end = 0, at
        for end in range(at + len("#[cfg(test)]"), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if (text[end] == ";" and depth == 0) or (text[end] == "}" and depth == 0):
                break
        text = text[:at] + text[end + 1 :]
    return text


def leaves(tree: str) -> list[str]:
    """The paths of a `use` tree, without renames."""
    head, brace, rest = tree.partition("{")
    if not brace:
        return [tree.split(" as ")[0].strip()]
    parts, depth, part = [], 0, ""
    for char in rest.rstrip().removesuffix("}"):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += char
    return [head.strip() + leaf for one in [*parts, part] if one.strip() for leaf in leaves(one.strip())]


class Crate:
    def __init__(self, src: Path):
        self.files = {self.module(src, file): file for file in sorted(src.rglob("*.rs")) if file.name != "main.rs"}
        self.text = {module: code(file.read_text()) for module, file in self.files.items()}
        self.uses = {
            module: [leaf for tree in re.findall(r"\buse\s+([^;]+);", text) for leaf in leaves(" ".join(tree.split()))]
            for module, text in self.text.items()
        }
        self.edges = {module: self.dependencies(module) for module in self.files}

    @staticmethod
    def module(src: Path, file: Path) -> tuple[str, ...]:
        parts = file.relative_to(src).with_suffix("").parts
        return () if parts == ("lib",) else parts

    def absolute(self, module: tuple[str, ...], path: str) -> tuple[str, ...] | None:
        """The path from the root of the crate; none where it leads into another crate."""
        parts = path.split("::")
        at = module
        if parts[0] == "crate":
            at, parts = (), parts[1:]
        elif parts[0] in ("self", "super"):
            while parts and parts[0] in ("self", "super"):
                at = at[:-1] if parts[0] == "super" else at
                parts = parts[1:]
        elif (*module, parts[0]) not in self.files:
            return None
        return (*at, *parts)

    def file_of(self, path: tuple[str, ...], depth: int = 0) -> tuple[str, ...] | None:
        """The module that defines what a path names."""
        module = path
        while module and module not in self.files:
            module = module[:-1]
        if module not in self.files:
            return None
        rest = path[len(module) :]
        if rest and rest[0] != "self" and depth < 8:
            for leaf in self.uses[module]:
                if leaf.split("::")[-1] == rest[0] and (target := self.absolute(module, leaf)):
                    return self.file_of((*target, *rest[1:]), depth + 1)
        return module

    def dependencies(self, module: tuple[str, ...]) -> set[tuple[str, ...]]:
        named = set(self.uses[module]) | set(PATH.findall(re.sub(r"\buse\s+[^;]+;", "", self.text[module])))
        targets = (self.absolute(module, path) for path in named)
        found = {self.file_of(target) for target in targets if target is not None}
        return {other for other in found if other is not None and module[: len(other)] != other}

    def reachable(self, module: tuple[str, ...]) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        ahead = list(self.edges[module])
        while ahead:
            if (other := ahead.pop()) not in found:
                found.add(other)
                ahead.extend(self.edges[other])
        return found

    def circles(self) -> list[list[tuple[str, ...]]]:
        """The sets of modules each of which leads to every other."""
        reachable = {module: self.reachable(module) for module in self.files}
        circles = {
            tuple(sorted(other for other in reachable[module] if module in reachable[other]))
            for module in self.files
            if module in reachable[module]
        }
        return sorted(list(circle) for circle in circles)


def main() -> int:
    failed = False
    for src in map(Path, sys.argv[1:]):
        crate = Crate(src)
        for circle in crate.circles():
            failed = True
            print("modules depend on each other in a circle:", file=sys.stderr)
            for module in circle:
                to = ", ".join(str(crate.files[other]) for other in sorted(crate.edges[module] & set(circle)))
                print(f"  {crate.files[module]} uses {to}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
