"""Check how much the code asks of its reader, and print the figures of the whole.

A function has at most 250 AST nodes (its docstring not counted), one lambda, and a complexity of
12: one for each branch, each part of a condition, each loop and condition of a comprehension. No
comprehension within a call holds a conditional expression.

Usage: ``python .ci/density.py src/pandas_amr``; the status is 1 if a function is over a limit.
"""

from __future__ import annotations

import argparse
import ast
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_NODES = 250
MOST_LAMBDAS = 1
MOST_COMPLEXITY = 12

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
BRANCHES = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.Assert,
    ast.match_case,
)


def strip_docstrings(tree: ast.Module) -> ast.Module:
    """Remove the docstrings: they are not what is measured."""
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS))
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def complexity(function: ast.AST) -> int:
    """Count branches, parts of conditions, loops and conditions of comprehensions."""
    count = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
    return count


def nested_conditionals(function: ast.AST) -> int:
    """Count the calls with a comprehension that holds a conditional expression."""
    count = 0
    for call in ast.walk(function):
        if not isinstance(call, ast.Call):
            continue
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        within = [
            node
            for argument in arguments
            for node in ast.walk(argument)
            if isinstance(node, COMPREHENSIONS)
        ]
        count += any(isinstance(node, ast.IfExp) for one in within for node in ast.walk(one))
    return count


def problems(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Say which limits a function is over."""
    nodes = sum(1 for _ in ast.walk(function))
    if nodes > MOST_NODES:
        yield f"{nodes} AST nodes, at most {MOST_NODES}"
    lambdas = sum(isinstance(node, ast.Lambda) for node in ast.walk(function))
    if lambdas > MOST_LAMBDAS:
        yield f"{lambdas} lambdas, at most {MOST_LAMBDAS}"
    branches = complexity(function)
    if branches > MOST_COMPLEXITY:
        yield f"complexity {branches}, at most {MOST_COMPLEXITY}"
    if nested_conditionals(function):
        yield "a conditional expression inside a comprehension inside a call"


def main() -> int:
    """Print each function that is over a limit, and the figure of the whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    nodes = lines = over = 0
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree = strip_docstrings(ast.parse(text))
        nodes += sum(1 for _ in ast.walk(tree))
        lines += len({node.lineno for node in ast.walk(tree) if hasattr(node, "lineno")})
        for function in ast.walk(tree):
            if isinstance(function, FUNCTIONS):
                for problem in problems(function):
                    over += 1
                    print(f"{path}:{function.lineno}: {function.name}: {problem}")
    print(f"{nodes / max(1, lines):.1f} AST nodes per line that begins one; {over} over a limit")
    return int(over > 0)


if __name__ == "__main__":
    raise SystemExit(main())
