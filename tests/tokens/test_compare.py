"""What is compared with a secret is compared in constant time: nothing but `compare_digest` looks at tags and seals."""

import ast

import pytest

from tests.tidy import house

SECRET = ("tag", "secret", "digest", "mac", "seal")
PLAIN = (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
MODULES = ("service.tokens.verify", "service.tokens.directory", "service.http.endpoint")


def said(node: ast.expr) -> set[str]:
    """The words of the names in an expression."""
    names = [one.id for one in ast.walk(node) if isinstance(one, ast.Name)]
    names += [one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)]
    return {word for name in names for word in name.lower().strip("_").split("_")}


def plain(text: str) -> list[str]:
    """The comparisons of a module that would stop at the first difference of a secret."""
    found = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Compare))
    return [
        ast.unparse(node)
        for node in found
        if any(isinstance(op, PLAIN) for op in node.ops) and said(node).intersection(SECRET)
    ]


BY_NAME = {one.name: one for one in house.modules()}
COMPARING = [name for name, one in BY_NAME.items() if "compare_digest" in one.path.read_text("utf-8")]
HOLDING = sorted({*COMPARING, *MODULES})


@pytest.mark.parametrize("name", HOLDING)
def test_no_secret_is_compared_by_an_operator(name: str) -> None:
    assert not plain(ast.unparse(BY_NAME[name].tree))


def test_the_reject_tag_is_compared_in_constant_time() -> None:
    seen = ast.unparse(BY_NAME["service.tokens.verify"].tree)
    assert "compare_digest(reject_tag(presented.id, presented.secret), tag)" in seen


@pytest.mark.parametrize("text", ["tag == other", "reject_tag(a, b) != row.tag", "x if self._secret in y else z"])
def test_a_planted_comparison_is_caught(text: str) -> None:
    assert plain(text)
