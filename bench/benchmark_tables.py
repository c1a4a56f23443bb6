"""Writes the tables of docs/benchmarks.md and README.md from record/*.jsonl. Nothing in them is typed by hand.

    python bench/benchmark_tables.py

A page says where a table stands: `<!-- table: NAME -->`, the table, `<!-- end -->`. Its rows are the lines of the record with
`"table": NAME`; their `row` has headings and cells. README's table takes the ratios of the tables sparse-MACHINE.
"""
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
README = [("ResNet-50, uniform 90 %", "1"), ("ResNet-50, uniform 95 %", "1"), ("ResNet-50, ERK 90 %", "1"),
          ("ResNet-18-CIFAR, uniform 90 %", "1"), ("ResNet-18-CIFAR, uniform 90 %", "32")]
MACHINES = {"AMD Zen 4": "sparse-zen-4", "Intel Xeon": "sparse-xeon", "AMD Zen 3, no AVX-512": "sparse-zen-3"}


def record():
    tables = {}
    for file in sorted((ROOT / "record").glob("*.jsonl")):
        for line in map(json.loads, file.read_text().splitlines()):
            if "row" in line:
                tables.setdefault(line["table"], []).append(line["row"])
    return tables


def readme(tables):
    for network, batch in README:
        ratios = {}
        for machine, table in MACHINES.items():
            found = [row["ratio"] for row in tables[table] if (row["network"], row["batch"]) == (network, batch)]
            ratios[machine] = f"{float(found[-1]):.1f}" if found else ""
        yield {"network": network, "batch": batch} | ratios


def markdown(rows):
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(row.values()).replace("  ", " ") + " |" for row in rows]).replace("|  |", "| |")


def main():
    tables = record()
    tables["readme"] = list(readme(tables))
    for page in [ROOT / "docs/benchmarks.md", ROOT / "README.md"]:
        written = re.sub(r"(<!-- table: (.+?) -->\n).*?(?=<!-- end -->)", lambda m: m[1] + markdown(tables[m[2]]) + "\n", page.read_text(), flags=re.S)
        page.write_text(written)


if __name__ == "__main__":
    main()
