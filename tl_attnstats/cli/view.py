"""`attnstats view`: the attention of one text, as an interactive page or as a figure."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tl_attnstats.cli.common import (
    HEAD,
    MODEL_HELP,
    Commands,
    UsageError,
    add_choice,
    check_writable,
    draw_to_files,
    head,
    layers,
    names,
    path,
    stats_file,
    text,
    whole,
)
from tl_attnstats.models.options import MAX_TOKENS

if TYPE_CHECKING:
    from tl_attnstats.views.text_attention import TextAttention

KINDS = ("head", "model", "neuron")
SUFFIXES = (".pdf", ".png", ".svg")
PAGE = ".html"
MOST_TOKENS = 512
"""Default limit for the page, which shows a long text as a paragraph."""


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("view", help="show the attention of one text, as an interactive page or as a figure")
    parser.set_defaults(command=_view, positional=("text",))
    parser.add_argument("text", help="the text")
    parser.add_argument("--model", type=text, required=True, help=MODEL_HELP)
    add_choice(parser, "--kind", KINDS, help="which figure (default model); a page has all of them")
    parser.add_argument(
        "--head", type=_heads, metavar="L8H6[,L9H1]", help="with --kind head: one or several heads; with neuron: one"
    )
    parser.add_argument(
        "--heads", type=_heads, metavar="L8H6[,L9H1]", help="with a page: the heads to choose from (default: all)"
    )
    parser.add_argument(
        "--query", type=text, metavar="TOKEN", help="draw only this attending token, by position (from 0) or text"
    )
    parser.add_argument("--layers", type=layers, metavar="0-3,7", help="layers to show (default: all)")
    parser.add_argument(
        "--bos", action=argparse.BooleanOptionalAction, help="start with BOS (default: as TransformerLens)"
    )
    parser.add_argument("--show-null", action="store_true", help="draw lines to null tokens too")
    parser.add_argument(
        "--max-tokens",
        type=whole(1),
        metavar="N",
        help=f"refuse longer texts (default {MAX_TOKENS} for a figure, {MOST_TOKENS} for a page)",
    )
    parser.add_argument(
        "--second",
        type=text,
        metavar="TEXT",
        help="a second part of the text; in an encoder–decoder, the decoder's text",
    )
    parser.add_argument(
        "--stats", type=path, metavar="DIR", help="with a page: output of run on the same model, to name the heads"
    )
    parser.add_argument(
        "--out", type=path, required=True, metavar="FILE", help="the page (.html), or a figure (.svg, .pdf or .png)"
    )


def _heads(given: str) -> list[str]:
    return [head(name) for name in names(given)]


def _view(args: argparse.Namespace) -> None:
    is_page = args.out.suffix.lower() == PAGE
    heads = (args.heads if is_page else args.head) or []
    _check(args, heads)
    file = None if args.stats is None else stats_file(args.stats)
    from tl_attnstats.models.loading import find_model, load_model

    find_model(args.model)
    draw_to_files()
    from tl_attnstats.results.stats import load
    from tl_attnstats.views.text_attention import attention_of

    named = sorted({_layer_of(head) for head in heads}) or None
    attention = attention_of(
        load_model(args.model),
        args.text if args.second is None else (args.text, args.second),
        layers=args.layers or (named if is_page else None),
        prepend_bos=args.bos,
        neurons=None if is_page else args.kind == "neuron",
        max_tokens=args.max_tokens or (MOST_TOKENS if is_page else MAX_TOKENS),
        stats=None if file is None else load(file),
    )
    if is_page:
        attention.write(args.out, heads=args.heads)
    else:
        _draw(attention, args, heads)
    print(args.out)


def _draw(attention: TextAttention, args: argparse.Namespace, heads: list[str]) -> None:
    import matplotlib.pyplot as plt

    from tl_attnstats.plotting.save import save
    from tl_attnstats.views import head_view, model_view, neuron_view

    query = int(args.query) if args.query and args.query.isdecimal() else args.query
    hide_null = not args.show_null
    if args.kind in (None, "model"):
        figure, _ = model_view(attention, hide_null=hide_null)
    elif args.kind == "head":
        figure, _ = head_view(attention, heads, query=query, hide_null=hide_null)
    else:
        figure = neuron_view(attention, heads[0], query)[0]
    save(figure, args.out)
    plt.close(figure)


def _layer_of(head: str) -> int:
    return int(HEAD.fullmatch(head)[1])  # type: ignore[index]  # the option type has checked it


def _check(args: argparse.Namespace, heads: list[str]) -> None:
    """Check everything that does not need the model. Raises `UsageError`."""
    if not args.text.strip():
        raise UsageError(f"text: got {args.text!r}, which has no tokens; expected some text")
    suffix = args.out.suffix.lower()
    if suffix not in (PAGE, *SUFFIXES):
        expected = ", ".join((PAGE, *SUFFIXES))
        raise UsageError(f"--out {args.out}: got the suffix {args.out.suffix!r}, expected one of {expected}")
    if suffix == PAGE:
        _check_page(args)
    else:
        _check_figure(args, heads)
    for name in heads:
        layer = _layer_of(name)
        if args.layers is not None and layer not in args.layers:
            flag = "--heads" if suffix == PAGE else "--head"
            raise UsageError(f"{flag} {name}: layer {layer} is not among --layers; leave --layers out, or add it")
    check_writable("--out", args.out.parent, args.out.name)


def _check_page(args: argparse.Namespace) -> None:
    for option in ("kind", "head", "query", "show_null"):
        if getattr(args, option):
            flag = f"--{option.replace('_', '-')}"
            raise UsageError(f"{flag}: applies only to figures; in a page ({args.out}) you choose it yourself")


def _check_figure(args: argparse.Namespace, heads: list[str]) -> None:
    for option in ("stats", "heads"):
        if getattr(args, option):
            raise UsageError(f"--{option}: applies only to a page, got {args.out}, expected --out FILE.html")
    if args.kind in (None, "model"):
        if heads or args.query:
            raise UsageError("--head and --query apply only to --kind head or neuron; the model view shows all heads")
    elif not heads or (args.kind == "neuron" and len(heads) > 1):
        expected = "one or several comma-separated heads" if args.kind == "head" else "one head"
        raise UsageError(
            f"--head: --kind {args.kind} got {','.join(heads) or 'none'}, expected {expected}, such as L8H6"
        )
    if args.kind == "neuron" and args.show_null:
        raise UsageError("--show-null applies only to --kind head or model; the neuron view shows all keys")
