"""`attnstats run`: run a corpus through a model, and write statistics, figures and a report."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tl_attnstats.attention.sources import SOURCES
from tl_attnstats.cli import patterns, resume, shards, statistics
from tl_attnstats.cli.common import (
    ENCODER_DECODER_STREAMS,
    MODEL_HELP,
    REPORT_FILE,
    STATS_FILE,
    Commands,
    UsageError,
    add_choice,
    check_file,
    check_writable,
    layers,
    path,
    text,
    whole,
)
from tl_attnstats.cli.output import write_results
from tl_attnstats.corpus.kinds import TEXT_KINDS, SequenceKind, TextKind
from tl_attnstats.corpus.on_error import ON_ERROR
from tl_attnstats.errors import CorpusError
from tl_attnstats.models.options import DTYPES, NULL_RULES

if TYPE_CHECKING:
    from tl_attnstats.collectors.base import Collector
    from tl_attnstats.corpus.corpus import Corpus
    from tl_attnstats.results.checkpoint import Checkpoint
    from tl_attnstats.run import Collectors

SAMPLE = Path(__file__).parents[1] / "data" / "sample.txt"


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("run", help="run a corpus through a model and save the statistics")
    parser.set_defaults(command=_run, positional=("model",))
    parser.add_argument("model", type=text, help=MODEL_HELP)
    _add_corpus(parser)
    parser.add_argument(
        "--out", type=path, required=True, metavar="DIR", help="where to write stats.nc, figures and report.html"
    )
    resume.add_to(parser)
    _add_model(parser)
    statistics.add_to(parser)
    patterns.add_to(parser)
    shards.add_to(parser)


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--text",
        type=path,
        metavar="FILE",
        help="texts: plain UTF-8 with one text per line, or .jsonl; either of them gzipped (.gz); or .parquet",
    )
    given.add_argument("--conllu", type=path, metavar="FILE", help="CoNLL-U file with gold annotation")
    given.add_argument("--corpus", type=path, metavar="FILE", help="saved annotated corpus, of any size")
    parser.add_argument(
        "--column",
        type=text,
        metavar="NAME",
        help="field or column with the texts of a .jsonl or .parquet --text (default: text)",
    )
    parser.add_argument(
        "--nlp", type=text, metavar="PIPELINE", help="spaCy pipeline for --text (default: the small English one)"
    )
    parser.add_argument(
        "--n-process", type=whole(1), metavar="N", help="number of processes that annotate --text (default 1)"
    )
    add_choice(
        parser, "--sequence-kind", TEXT_KINDS, help="what the model reads at once from --text (default: sentence)"
    )
    add_choice(
        parser,
        "--on-error",
        ON_ERROR,
        default="raise",
        help="a text on which annotator or tokenizer fails: stop, or skip it and list it (default: raise)",
    )
    parser.add_argument("--limit", type=whole(1), metavar="N", help="only the first N sentences")
    parser.add_argument(
        "--save-corpus",
        type=path,
        metavar="FILE.parquet",
        help="save the annotated corpus for --corpus; an interrupted annotation of --text resumes from it",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: a GPU if available)")
    parser.add_argument("--dtype", default="float32", help=f"{', '.join(DTYPES)} (default float32)")
    parser.add_argument(
        "--bos", action=argparse.BooleanOptionalAction, help="start with BOS (default: as TransformerLens)"
    )
    add_choice(parser, "--null", ("auto", *NULL_RULES), default="auto", help="null tokens (default auto)")
    add_choice(
        parser,
        "--source",
        SOURCES,
        default="auto",
        help="read attention from pattern hooks, or streamed in blocks of rows (default: streamed if possible)",
    )
    add_choice(
        parser,
        "--stream",
        ("all", *ENCODER_DECODER_STREAMS),
        default="all",
        help="stream of an encoder–decoder; each is written to a directory of its name in DIR (default: all)",
    )
    parser.add_argument("--layers", type=layers, metavar="0-3,7", help="layers to read (default: all)")
    parser.add_argument(
        "--batch-tokens",
        type=whole(1),
        default=1024,
        metavar="N",
        help="maximum number of tokens per batch (default 1024)",
    )
    parser.add_argument(
        "--stride", type=whole(1), metavar="N", help="for long documents: tokens between the starts of windows"
    )
    parser.add_argument(
        "--truncate", action="store_true", help="cut sentences that exceed the context instead of refusing"
    )


class _Plan(NamedTuple):
    """The collectors of one stream of attention, what makes them for a model, and the directory for their results."""

    collectors: Collectors
    make: partial[Collectors]
    out: Path


def _run(args: argparse.Namespace) -> None:
    # Check first, so that mistakes are answered before the slow steps.
    _check(args)
    with nullcontext() if args.shard else resume.alone_in(args.out):  # shards are run into one directory at once
        _run_alone(args)


def _run_alone(args: argparse.Namespace) -> None:
    from tl_attnstats.corpus.annotate import load_pipeline
    from tl_attnstats.models.loading import find_device, load_model

    # Workers of an engine have devices of their own. The model is loaded here to check the options.
    device = "cpu" if args.engine else find_device(args.device)
    corpus = _annotated(args)
    pipeline = None if corpus else load_pipeline(args.nlp)
    model = load_model(args.model, device=device, dtype=args.dtype)
    sequence_kind: TextKind = args.sequence_kind or "sentence"
    plans = _plans(args, model, corpus.sequence_kind if corpus else sequence_kind)
    if corpus is None:
        corpus = _annotate(args, pipeline, sequence_kind)
    elif args.save_corpus:
        corpus.to_file(args.save_corpus)
    # A stream that is done keeps its checkpoint until all are, so that it is not run again.
    args.checkpoints = []
    for plan in plans:
        part = corpus[: args.limit]
        if args.shard:
            shards.run_one(args, plan.collectors, part, plan.out)
        elif args.engine:
            args.checkpoints.append(shards.KeptShards(plan.out, args.fresh))
            whole_patterns = partial(patterns.patterns_for, args, plan.collectors)
            stats = shards.run_all(args, plan.make, part, plan.out)
            write_results(stats, plan.out, f", engine {args.engine}", whole_patterns)
        else:
            checkpoint = resume.checkpoint_in(args, plan.out)
            args.checkpoints += [checkpoint] if checkpoint else []
            _collect(args, plan, part, device, checkpoint)
    for checkpoint in args.checkpoints:
        checkpoint.remove()


def _annotate(args: argparse.Namespace, pipeline: Any, sequence_kind: TextKind) -> Corpus:
    """Annotate --text, straight into the --save-corpus file unless that is JSON lines."""
    from tl_attnstats.corpus.corpus import Corpus

    into = args.save_corpus if args.save_corpus and args.save_corpus.suffix != ".jsonl" else None
    try:
        corpus = Corpus.from_text_file(
            args.text,
            pipeline,
            column=args.column,
            sequence_kind=sequence_kind,
            into=into,
            n_process=args.n_process or 1,
            on_error=args.on_error,
        )
    except KeyboardInterrupt:
        again = "; run the same command again to resume" if into else ""
        raise KeyboardInterrupt(f"interrupted while annotating{again}") from None
    if args.save_corpus and not into:
        corpus.to_file(args.save_corpus)
    return corpus


def _check(args: argparse.Namespace) -> None:
    """Check everything that does not need the model, without heavy imports."""
    from tl_attnstats.models.loading import check_device, check_dtype, find_model

    resume.check(args)
    shards.check(args)
    statistics.check(args)
    patterns.check(args)
    check_dtype(args.dtype)
    check_device(args.device)
    find_model(args.model)
    _check_corpus(args)
    if args.save_corpus:
        check_writable("--save-corpus", args.save_corpus.parent, args.save_corpus.name)
    check_writable("--out", args.out, STATS_FILE, REPORT_FILE)


def _check_corpus(args: argparse.Namespace) -> None:
    if not (args.text or args.conllu or args.corpus):
        if args.model != "demo":
            raise UsageError("no corpus: pass --text FILE, --conllu FILE or --corpus FILE")
        args.text = SAMPLE
    for option in ("text", "conllu", "corpus"):
        file = getattr(args, option)
        if file is None:
            continue
        check_file(f"--{option}", file)
        if args.save_corpus and args.save_corpus.exists() and args.save_corpus.samefile(file):
            raise UsageError(f"--save-corpus {args.save_corpus}: would overwrite --{option}; choose another file")
    for flag, value in (("--nlp", args.nlp), ("--n-process", args.n_process)):
        if value and not args.text:
            raise UsageError(f"{flag} applies only to --text: a treebank or saved corpus is already annotated")
    if args.column and not args.text:
        raise UsageError("--column applies only to --text: a treebank or saved corpus has fixed columns")
    if args.sequence_kind and not args.text:
        raise UsageError(
            "--sequence-kind applies only to --text: a treebank has sentences, and a saved corpus knows its kind"
        )
    if args.stride is not None and args.truncate:
        raise UsageError(f"--stride={args.stride}: has no effect with --truncate, which leaves a single window")
    if not args.corpus:
        _check_stride(args, args.sequence_kind or "sentence")


def _check_stride(args: argparse.Namespace, sequence_kind: str) -> None:
    if args.stride is not None and sequence_kind != "document":
        raise UsageError(
            f"--stride={args.stride}: only documents have windows (--sequence-kind document); this corpus has sentences"
        )


def _annotated(args: argparse.Namespace) -> Corpus | None:
    """The corpus if it is already annotated; None for a text, after checking that it is not empty."""
    from tl_attnstats.corpus.corpus import Corpus
    from tl_attnstats.corpus.texts import texts_of_file

    if args.conllu:
        return Corpus.from_conllu(args.conllu)
    if args.corpus:
        corpus = Corpus.from_file(args.corpus)
        _check_stride(args, corpus.sequence_kind)
        return corpus
    if not any(text.strip() for text in texts_of_file(args.text, args.column)):
        raise CorpusError(f"empty corpus: no sentence found in {args.text.name}")
    return None


def _plans(args: argparse.Namespace, model: Any, sequence_kind: SequenceKind) -> list[_Plan]:
    """One plan for each stream of attention. Raises if the model does not have the stream."""
    from tl_attnstats.models.describe import streams

    offered = streams(model)
    if offered == ("self",):
        if args.stream != "all":
            raise UsageError(f"--stream {args.stream}: {args.model} is not an encoder–decoder; leave --stream out")
        plans = [
            _plan(
                args,
                model,
                sequence_kind,
                statistics.of_kind(args, statistics.chosen(args), sequence_kind),
                None,
                args.out,
            )
        ]
    else:
        plans = []
        for stream in offered if args.stream == "all" else (args.stream,):
            chosen = statistics.across(args) if stream == "cross" else statistics.chosen(args)
            chosen = statistics.of_kind(args, chosen, sequence_kind)
            if chosen:
                plans.append(_plan(args, model, sequence_kind, chosen, stream, args.out / stream))
    for plan in plans:
        check_writable("--out", plan.out, STATS_FILE, REPORT_FILE)
    return plans


def _plan(
    args: argparse.Namespace,
    model: Any,
    sequence_kind: SequenceKind,
    metrics: list[Collector],
    stream: str | None,
    out: Path,
) -> _Plan:
    from tl_attnstats.run import Collectors

    make = partial(
        Collectors,
        metrics=metrics,
        layers=args.layers,
        null=args.null,
        prepend_bos=args.bos,
        source=args.source,
        stream=stream,
        sequence_kind=sequence_kind,
    )
    collectors = make(model)
    room = collectors.info.framing.room
    if room is not None and (args.stride or 0) > room:
        raise UsageError(
            f"--stride={args.stride}: a window of {collectors.info.name} has {room} tokens; pass at most that"
        )
    return _Plan(collectors, make, out)


def _collect(args: argparse.Namespace, plan: _Plan, corpus: Corpus, device: str, checkpoint: Checkpoint | None) -> None:
    from tl_attnstats.run import collect_with

    stats = collect_with(
        plan.collectors,
        corpus,
        batch_tokens=args.batch_tokens,
        truncate=args.truncate,
        stride=args.stride,
        on_error=args.on_error,
        checkpoint=checkpoint,
    )
    if checkpoint:
        checkpoint.keep()  # the whole run, until everything is written
    write_results(stats, plan.out, f", device {device}", partial(patterns.patterns_for, args, plan.collectors))
