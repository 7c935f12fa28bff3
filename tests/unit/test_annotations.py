"""Annotations say what a value is. mypy checks nothing about a bare ``Any``."""

import ast
from pathlib import Path

import bulksafe

PACKAGE = Path(bulksafe.__file__).parent

#: The largest share of all annotations that may be a bare ``Any``.
LIMIT = 0.05


def annotations_of(tree):
    """The annotations of parameters, results, variables and attributes.

    Without those of ``*args`` and ``**kwargs``, which pass on what another function takes.
    """
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                named = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                yield from (one.annotation for one in named if one.annotation)
                if node.returns:
                    yield node.returns
            case ast.AnnAssign():
                yield node.annotation


def bare(annotations):
    return [one for one in annotations if isinstance(one, ast.Name) and one.id == "Any"]


def test_few_annotations_are_a_bare_any():
    found = {
        path.relative_to(PACKAGE).as_posix(): [*annotations_of(ast.parse(path.read_text("utf-8")))]
        for path in PACKAGE.rglob("*.py")
    }
    total = sum(map(len, found.values()))
    counts = {path: len(bare(annotations)) for path, annotations in found.items()}
    most = sorted(counts.items(), key=lambda pair: -pair[1])[:10]
    share = sum(counts.values()) / total
    assert share <= LIMIT, f"{share:.1%} of {total} annotations are Any, most of them in {most}"


def test_every_kind_of_annotation_is_counted():
    tree = ast.parse(
        "class A:\n    value: Any\n    async def run(self, one: Any, /, *, two: Any) -> Any: ...\n"
        "def call(given: Any, *args: Any, **kwargs: Any) -> dict[str, Any]: ...\n"
    )
    annotations = list(annotations_of(tree))
    assert (len(bare(annotations)), len(annotations)) == (5, 6)
