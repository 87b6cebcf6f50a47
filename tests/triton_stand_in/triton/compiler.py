from types import SimpleNamespace


def ASTSource(fn, signature, constexprs, attrs):  # noqa: N802 - as Triton calls it
    assert all(0 <= place < len(fn.arg_names) for (place,) in attrs), "attributes are of arguments, by their places"
    return SimpleNamespace(fn=fn, signature=signature, constexprs=constexprs)
