"""The command `attnstats`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tl_attnstats.attention.block import NULL_RULES
from tl_attnstats.attention.single import MAX_TOKENS
from tl_attnstats.collectors.base import Collector, known
from tl_attnstats.collectors.dependency import DepTo
from tl_attnstats.collectors.exemplars import Exemplars
from tl_attnstats.collectors.group import DEFAULT_METRICS
from tl_attnstats.collectors.offsets import OffsetProfile
from tl_attnstats.corpus.annotate import UNITS
from tl_attnstats.corpus.corpus import Corpus
from tl_attnstats.errors import AttnStatsError, CorpusError, FigureError, MetricError, StatsError
from tl_attnstats.stats import HEAD, AttentionStats, load

SAMPLE = Path(__file__).parent / "data" / "sample.txt"
ENCODER_DECODER_STREAMS = ("encoder", "decoder", "cross")
STATS_FILE = "stats.nc"
REPORT_FILE = "report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. What a user can get wrong ends in one line, not in a traceback."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        return int(args.command(args) or 0)
    except AttnStatsError as error:
        print(f"attnstats: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        # Sentences come longest first: figures of a part of them would mislead, so none are written.
        print(f"attnstats: {str(interrupt) or 'interrupted'}; nothing was written", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="attnstats", description="Attention statistics of every head of a model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a corpus through a model and save the statistics")
    run.set_defaults(command=_run)
    run.add_argument("model", help="hub name, local transformers directory, .gguf file, or 'demo'")
    source = run.add_mutually_exclusive_group()
    source.add_argument("--text", type=Path, metavar="FILE", help="plain UTF-8 text, a text (some sentences) a line")
    source.add_argument("--conllu", type=Path, metavar="FILE", help="CoNLL-U file with gold annotation")
    source.add_argument("--corpus", type=Path, metavar="FILE", help="annotated corpus saved before")
    run.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where to write stats.nc, figures and report.html"
    )
    run.add_argument("--nlp", metavar="PIPELINE", help="spaCy pipeline for --text (default: the small English one)")
    run.add_argument("--metrics", metavar="A,B", help=f"statistics, of {', '.join(DEFAULT_METRICS)} (default: all)")
    run.add_argument("--unit", choices=UNITS, help="what --text gives the model at once (default: a sentence)")
    run.add_argument("--stride", type=int, metavar="N", help="of long documents: tokens from one window to the next")
    run.add_argument("--layers", metavar="0-3,7", help="layers to look at (default: all)")
    run.add_argument("--limit", type=int, metavar="N", help="only the first N sentences")
    run.add_argument("--batch-tokens", type=int, default=1024, metavar="N", help="most tokens a batch (default 1024)")
    run.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    run.add_argument("--dtype", default="float32", help="float32 (default), bfloat16, float16")
    run.add_argument(
        "--bos", action=argparse.BooleanOptionalAction, help="begin with BOS (default: as TransformerLens)"
    )
    run.add_argument("--null", default="auto", choices=("auto", *NULL_RULES), help="null tokens (default auto)")
    run.add_argument(
        "--source",
        default="auto",
        choices=("auto", "hooks", "streamed"),
        help="read attention from pattern hooks, or streamed in blocks of rows (default: streamed if it can be)",
    )
    run.add_argument(
        "--stream",
        default="all",
        choices=("all", *ENCODER_DECODER_STREAMS),
        help="of an encoder–decoder: which attention, each into a directory of its name in DIR (default: all)",
    )
    run.add_argument("--truncate", action="store_true", help="cut sentences that exceed the context, do not refuse")
    run.add_argument("--exemplars", type=int, default=10, metavar="K", help="exemplars a head (default 10)")
    run.add_argument("--exclude-self", action="store_true", help="no exemplars of tokens that attend to themselves")
    run.add_argument("--max-offset", type=int, default=64, metavar="D", help="width of the offset profile (default 64)")
    run.add_argument(
        "--octaves", type=int, metavar="N", help="wider entries of the profile beyond (default: 7 for documents)"
    )
    run.add_argument("--subtypes", action="store_true", help="keep subtypes of relations apart (nmod:poss)")
    run.add_argument("--save-corpus", type=Path, metavar="FILE", help="keep the annotated corpus for --corpus")

    models = commands.add_parser("models", help="what a model offers: streams, layers, heads, windows, null tokens")
    models.set_defaults(command=_models)
    models.add_argument("model", help="as in run")

    show = commands.add_parser("show", help="tables and exemplars in the terminal")
    show.set_defaults(command=_show)
    show.add_argument("stats", type=Path, metavar="DIR", help="what run wrote: the directory, or its stats.nc")
    show.add_argument("--head", metavar="L10H10", help="everything about one head")
    show.add_argument("--top", metavar="STATISTIC", help="the heads with the largest values")
    show.add_argument("--label", metavar="NOUN", help="with --top: the tag, relation, direction or offset")
    show.add_argument("-n", type=int, default=10, help="with --top: how many (default 10)")

    report = commands.add_parser("report", help="write report.html, one page for a browser, beside the statistics")
    report.set_defaults(command=_report)
    report.add_argument("stats", type=Path, metavar="DIR", help="what run wrote: the directory, or its stats.nc")

    compare = commands.add_parser("compare", help="put the statistics of several models side by side, on one page")
    compare.set_defaults(command=_compare)
    compare.add_argument(
        "stats", nargs="+", metavar="[NAME=]DIR", help="what run wrote; NAME is what to call the model"
    )
    compare.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where to write comparison.html, claims.csv and figures"
    )
    compare.add_argument("--allow-different", action="store_true", help="compare even what saw different corpora")

    view = commands.add_parser("view", help="draw the attention of one text")
    view.set_defaults(command=_view)
    view.add_argument("text", help="the text")
    view.add_argument("--model", required=True, help="as in run")
    view.add_argument("--kind", choices=("head", "model", "neuron"), default="model", help="which view (default model)")
    view.add_argument("--head", metavar="L8H6[,L9H1]", help="with --kind head: a head or several; neuron: one")
    view.add_argument("--query", metavar="TOKEN", help="only from this token: its position, from 0, or its text")
    view.add_argument("--layers", metavar="0-3,7", help="layers to look at (default: all)")
    view.add_argument(
        "--bos", action=argparse.BooleanOptionalAction, help="begin with BOS (default: as TransformerLens)"
    )
    view.add_argument("--show-null", action="store_true", help="lines to null tokens too")
    view.add_argument(
        "--max-tokens", type=int, default=MAX_TOKENS, metavar="N", help=f"refuse longer texts (default {MAX_TOKENS})"
    )
    view.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to draw: .svg, .pdf or .png")
    return parser


def _run(args: argparse.Namespace) -> None:
    metrics = _metrics(args)  # mistakes are answered before the model is loaded
    layers = None if args.layers is None else _layers(args.layers)
    _check_writable(args.out)
    corpus = _corpus(args)
    # Imported late, so that mistakes above are answered at once and not after the seconds that these take.
    from tl_attnstats.attention.loading import load_model
    from tl_attnstats.attention.models import describe, streams

    model = load_model(args.model, device=args.device, dtype=args.dtype)
    offered = streams(model)
    if offered == ("self",):
        _run_stream(args, model, corpus, metrics, layers, None if args.stream == "all" else args.stream, args.out)
        return
    wanted = offered if args.stream == "all" else (args.stream,)
    for stream in wanted:
        describe(model, stream=stream, null=args.null, layers=layers)  # before any of them is run
    for stream in wanted:
        chosen = metrics
        if stream == "cross" and (args.stream == "all" or not args.metrics):
            every = _metrics(args, crosses=True)
            chosen = [metric for metric in every if not metric.within_sequence]
            left_out = ", ".join(metric.name for metric in every if metric.within_sequence)
            if left_out:
                print(f"cross: without {left_out}, not defined between tokens of two sequences")
        if chosen:
            _run_stream(args, model, corpus, chosen, layers, stream, args.out / stream)


def _run_stream(
    args: argparse.Namespace,
    model: Any,
    corpus: Corpus,
    metrics: list[Collector],
    layers: list[int] | None,
    stream: str | None,
    out: Path,
) -> None:
    from tl_attnstats import report
    from tl_attnstats.run import collect

    stats = collect(
        model,
        corpus,
        metrics,
        stream=stream,
        layers=layers,
        batch_tokens=args.batch_tokens,
        null=args.null,
        prepend_bos=args.bos,
        source=args.source,
        truncate=args.truncate,
        stride=args.stride,
    )
    stats.save(out / STATS_FILE)
    figures = _draw(stats, out)
    report.write(stats, out / REPORT_FILE)
    print(f"{stats.extent}, source {stats.provenance['source']} → {out / STATS_FILE}")
    print(f"figures: {', '.join(figures)}")
    print(f"report: {out / REPORT_FILE}")


def _models(args: argparse.Namespace) -> None:
    from tl_attnstats import offers
    from tl_attnstats.attention.loading import load_model

    offers.page(load_model(args.model), _console())


def _show(args: argparse.Namespace) -> None:
    from tl_attnstats import show

    stats = load(_stats_file(args.stats))
    console = _console()
    if args.head:
        show.head_page(stats, args.head, console)
    if args.top:
        show.top(stats, args.top, console, n=args.n, label=args.label)
    if not args.head and not args.top:
        show.overview(stats, console)


def _report(args: argparse.Namespace) -> None:
    from tl_attnstats import report

    file = _stats_file(args.stats)
    page = file.parent / REPORT_FILE
    report.write(load(file), page)
    print(page)


def _compare(args: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("agg")  # files only: no window, no display needed
    from tl_attnstats import report
    from tl_attnstats.compare import compare

    _check_writable(args.out)
    runs = [_named(given) for given in args.stats]
    stats = [load(_stats_file(path)) for _, path in runs]
    names = [name or str(of.provenance["model"]) for (name, _), of in zip(runs, stats, strict=True)]
    if len(set(names)) < len(names):
        names = [name or path.absolute().name for name, path in runs]
    if len(set(names)) < len(names):
        raise StatsError(f"compare: got the names {', '.join(names)}, expected each once; give names: NAME=DIR")
    comparison = compare(dict(zip(names, stats, strict=True)), allow_different=args.allow_different)
    page, table, *figures = report.write_comparison(comparison, args.out)
    for note in comparison.notes:
        print(f"note: {note}")
    print(f"claims: {table}")
    print(f"figures: {', '.join(path.name for path in figures)}")
    print(f"comparison: {page}")


def _named(given: str) -> tuple[str, Path]:
    """Name, "" where none is given, and path of `NAME=DIR`."""
    name, equals, path = given.partition("=")
    return (name, Path(path)) if equals and not Path(given).exists() else ("", Path(given))


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160)


def _stats_file(path: Path) -> Path:
    within = [stream for stream in ENCODER_DECODER_STREAMS if (path / stream / STATS_FILE).is_file()]
    if within and not (path / STATS_FILE).is_file():
        raise StatsError(f"{path}: it holds a directory for each stream of attention; give one: {path / within[0]}")
    return path / STATS_FILE if path.is_dir() else path


def _view(args: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("agg")  # files only: no window, no display needed
    import matplotlib.pyplot as plt

    from tl_attnstats.plotting import head_view, model_view, neuron_view
    from tl_attnstats.plotting.save import check_suffix, save

    check_suffix(args.out)
    heads = [name.strip() for name in args.head.split(",")] if args.head else []
    _check_view(args, heads)
    layers = None if args.layers is None else _layers(args.layers)
    _check_writable(args.out.parent)
    query = int(args.query) if args.query and args.query.isdecimal() else args.query
    from tl_attnstats.attention.loading import load_model
    from tl_attnstats.attention.single import attention_of

    attention = attention_of(
        load_model(args.model),
        args.text,
        layers=layers,
        prepend_bos=args.bos,
        neurons=args.kind == "neuron",
        max_tokens=args.max_tokens,
    )
    hide_null = not args.show_null
    if args.kind == "model":
        figure, _ = model_view(attention, hide_null=hide_null)
    elif args.kind == "head":
        figure, _ = head_view(attention, heads, query=query, hide_null=hide_null)
    else:
        figure = neuron_view(attention, heads[0], query)[0]
    save(figure, args.out)
    plt.close(figure)
    print(args.out)


def _check_view(args: argparse.Namespace, heads: list[str]) -> None:
    if args.kind == "model":
        if heads or args.query:
            raise FigureError("--head and --query go with --kind head or neuron; the model view shows all heads")
    elif not heads or (args.kind == "neuron" and len(heads) > 1):
        expected = "one head, or several with commas" if args.kind == "head" else "one head"
        raise FigureError(f"--head: --kind {args.kind} got {args.head or 'none'}, expected {expected}, such as L8H6")
    if args.kind == "neuron" and args.show_null:
        raise FigureError("--show-null goes with --kind head or model; the neuron view shows all keys")
    for name in heads:
        if not HEAD.fullmatch(name):
            raise FigureError(f"--head {name}: expected a name such as L8H6")


def _corpus(args: argparse.Namespace) -> Corpus:
    if args.limit is not None and args.limit < 1:
        raise CorpusError(f"--limit {args.limit}: expected a positive number of sentences")
    if args.unit and (args.conllu or args.corpus):
        raise CorpusError("--unit goes with --text: a treebank is of sentences, and an annotated corpus knows its unit")
    if args.conllu:
        corpus = Corpus.from_conllu(args.conllu)
    elif args.corpus:
        corpus = Corpus.from_file(args.corpus)
    elif args.text or args.model == "demo":
        corpus = Corpus.from_text_file(args.text or SAMPLE, args.nlp, unit=args.unit or "sentence")
    else:
        raise CorpusError("no corpus: give one of --text FILE, --conllu FILE, --corpus FILE")
    if args.save_corpus:
        corpus.to_file(args.save_corpus)
    return corpus[: args.limit]


def _metrics(args: argparse.Namespace, *, crosses: bool = False) -> list[Collector]:
    names = [name.strip() for name in args.metrics.split(",")] if args.metrics else DEFAULT_METRICS
    if args.exemplars < 1 or args.max_offset < 1 or (args.octaves or 0) < 0:
        raise MetricError("--exemplars and --max-offset: expected a positive number, --octaves: 0 or more")
    configured = {
        "exemplars": Exemplars(args.exemplars, args.exclude_self and not crosses),  # crossing, nothing is itself
        "offset_profile": OffsetProfile(args.max_offset, args.octaves),
        "dep_to": DepTo(args.subtypes),
    }
    return [configured[name] if name in configured else known(name)() for name in names]


def _layers(text: str) -> list[int]:
    try:
        layers: list[int] = []
        for part in text.split(","):
            first, _, last = part.partition("-")
            layers += range(int(first), int(last or first) + 1)
    except ValueError:
        raise MetricError(f"--layers {text}: expected numbers and ranges, such as 0-3,7") from None
    return layers


def _check_writable(directory: Path) -> None:
    """Find out now, not after the run."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise StatsError(f"--out {directory}: cannot write there ({error.strerror})") from None


def _draw(stats: AttentionStats, directory: Path) -> list[str]:
    """The figures of the paper; returns the file names."""
    import matplotlib

    matplotlib.use("agg")  # files only: no window, no display needed
    from tl_attnstats.plotting import paper_figures

    return [path.name for path in paper_figures(stats, directory, "png")]


if __name__ == "__main__":
    sys.exit(main())
