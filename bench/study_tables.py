"""The tables of docs/study.md: python bench/study_tables.py STUDY.json ..."""
import json
import sys

for path in sys.argv[1:]:
    for model in json.load(open(path))["models"]:
        sparsities = sorted({p["sparsity"] for c in model["curves"] for p in c["points"]})
        dense = model["dense"]
        print(f"\n### {model['name']}\n\nDense: {100 * model['dense_value']:.2f} % of {dense['images']} images.\n")
        print("| allocation · repair |" + "".join(f" {100 * s:g} % |" for s in sparsities))
        print("| --- |" + " --- |" * len(sparsities))
        for curve in model["curves"]:
            run = curve["configuration"]
            name = f"{run['allocation']} · {run['repair']}"
            name = name if run["criterion"] == "magnitude" else f"random, {name}"
            values = {p["sparsity"]: f"{100 * p['value']:.1f}" for p in curve["points"]}
            print(f"| {name} |" + "".join(f" {values.get(s, '-')} |" for s in sparsities))
        print("\nTransition regimes (5 points ahead of recalibration, a tenth of the way from chance to dense):\n")
        for t in model["transitions"]:
            if t["ranges"] and t["configuration"]["criterion"] == "magnitude":
                ranges = " and ".join(f"{100 * a:.1f} to {100 * b:.1f} %" for a, b in t["ranges"])
                print(f"* {t['configuration']['allocation']} · {t['configuration']['repair']}: {ranges}{' (open)' if t['open'] else ''}")
