"""What a second drop of 1 % costs in tokenizing: calls, CPU seconds, bytes; with and without what was kept.

python tests/benchmarks/bench_tokens.py --pairs 20000
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from planting import World

from dpo_pipeline.core.tables import write_table
from dpo_pipeline.dpo.pairs import encode_rows
from dpo_pipeline.modeling import template
from dpo_pipeline.modeling.base import train_tokenizer
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.kept_tokens import TOKENS
from dpo_pipeline.preferences.schemas import PAIRS


def write_pairs(folder, pairs):
    import pyarrow as pa

    folder.mkdir()
    empty = {pa.types.is_string: "", pa.types.is_list: [], pa.types.is_boolean: False}
    given = {
        "pair_id": [f"{number:032x}" for number in range(len(pairs))],
        "split": ["train"] * len(pairs),
        "prompt": [[{"role": "user", "content": pair.prompt}] for pair in pairs],
        "chosen": [pair.a for pair in pairs],
        "rejected": [pair.b for pair in pairs],
    }
    columns = []
    for field in PAIRS:
        default = next((value for test, value in empty.items() if test(field.type)), 0)
        columns.append(pa.array(given.get(field.name, [default] * len(pairs)), field.type))
    write_table(folder / "pairs.parquet", pa.Table.from_arrays(columns, schema=PAIRS))
    return folder


def measured(name, pairs, tokenizer, out, *, known=(), keep=True):
    """Encode a pair table as the reference pass does; print what it cost."""
    texts, real = 0, template._tokenize

    def counting(made, some):
        nonlocal texts
        texts += len(some)
        return real(made, some)

    template._tokenize = counting
    encoder = Encoder(tokenizer, max_length=1024, known=known)
    out.mkdir()
    started = time.process_time()
    if keep:
        with encoder.keeping_in(out):
            encoded, _ = encode_rows(pairs, encoder)
    else:
        encoded, _ = encode_rows(pairs, encoder)
    seconds = time.process_time() - started
    template._tokenize = real
    tokens = sum(len(part) for pair in encoded.pairs for part in pair[:3])
    size = (out / TOKENS).stat().st_size if keep else 0
    print(json.dumps({
        "what": name, "pairs": len(encoded.pairs), "tokens": tokens, "texts_tokenized": texts,
        "cpu_seconds": round(seconds, 2), "bytes_kept_per_token": round(size / tokens, 2),
        "bytes_of_pairs_per_token": round((pairs / "pairs.parquet").stat().st_size / tokens, 2),
    }))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    arguments = parser.parse_args()
    world = World(7)
    pairs = [world.pair() for _ in range(arguments.pairs + arguments.pairs // 100)]
    tokenizer = train_tokenizer((text for pair in pairs[:5_000] for text in pair), vocabulary_size=arguments.vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        first = write_pairs(root / "first drop", pairs[: arguments.pairs])
        both = write_pairs(root / "both drops", [pair for n in range(100) for pair in pairs[n::100]])
        measured("nothing kept, first drop", first, tokenizer, root / "0", keep=False)
        measured("first drop", first, tokenizer, root / "1")
        measured("1 % more, nothing known", both, tokenizer, root / "2", keep=False)
        measured("1 % more, in another order", both, tokenizer, root / "3", known=[root / "1"])
        measured("training, by the table", both, tokenizer, root / "4", known=[root / "3"], keep=False)
        again = write_pairs(root / "both in order", pairs)
        measured("1 % more", again, tokenizer, root / "5", known=[root / "1"])


if __name__ == "__main__":
    main()
