"""The raw results as a table."""

import shlex
import statistics


def at(line, key):
    for part in key.split("."):
        line = line[part]
    return line


def quantity(value, unit):
    if unit == "B":
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if value * factor >= 1:
            break
    return f"{value * factor:.3g} {name}"


def spread(values, show):
    """Median, and the range in brackets."""
    middle = show(statistics.median(values))
    return f"{middle} ({show(min(values))} - {show(max(values))})" if len(values) > 1 else middle


def compare(row, measure):
    """Both sides' values of a measure, the peer's best way, and the ratio of each pair."""
    ours = [at(pair["ours"], measure["key"]) for pair in row["pairs"]]
    peer_key = measure["peer_key"] or measure["key"]
    ways = {way: [at(pair["peers"][way], peer_key) for pair in row["pairs"]] for way in row["peers"]}
    way = min(ways, key=lambda way: statistics.median(ways[way]))
    ratios = [theirs / own for theirs, own in zip(ways[way], ours)]
    return ours, way, ways[way], ratios


def versus(rows):
    head = "| work | threads | retrack | peer | ratio of each pair | at least | reached | pairs |"
    lines = [head, "|" + "---|" * 8]
    for row in rows:
        for measure in row["measures"]:
            ours, way, theirs, ratios = compare(row, measure)
            show = lambda value: quantity(value, measure["unit"])
            named = f"{row['peer']}, {way}" if len(row["peers"]) > 1 else row["peer"]
            asked = measure["at_least"]
            reached = "yes" if statistics.median(ratios) >= asked else "**no**"
            if not asked:
                reached = ""
            cells = [
                measure["title"],
                str(row["threads"]),
                spread(ours, show),
                f"{spread(theirs, show)}: {named}",
                spread(ratios, lambda ratio: f"{ratio:.2f}"),
                f"{asked:g}" if asked else "",
                reached,
                str(len(row["pairs"])),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def limits(rows):
    lines = ["| work | threads | peak memory | limit | reached | seconds | runs |", "|" + "---|" * 7]
    for row in rows:
        peaks = [run["peak_rss_bytes"] for run in row["runs"]]
        seconds = [run["seconds"] for run in row["runs"]]
        cells = [
            f"{row['title']} ({row['bytes_on_disk'] / 1e9:.2f} GB on disk)",
            str(row["threads"]),
            spread(peaks, lambda value: quantity(value, "B")),
            quantity(row["limit_bytes"], "B"),
            "yes" if max(peaks) < row["limit_bytes"] else "**no**",
            spread(seconds, lambda value: f"{value:.1f}"),
            str(len(row["runs"])),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def series(row):
    """Cost an image, or an image and pixel, which is constant where cost grows linearly."""
    pixels = row["varies"] == "pixels"
    part = "time per pixel" if pixels else "time per image"
    head = f"| {row['varies']} | step | {part} | over the largest's |"
    lines = [f"**{row['title']}**", "", head, "|---|---|---|---|"]
    seconds, each = {}, {}
    for size in row["points"]:
        # A step is 2 B images.
        found = [at(run[size], "seconds_per_image.median") for run in row["runs"]]
        seconds[size] = statistics.median(found) * 2 * row["runs"][0][size]["batch_size"]
        line = row["runs"][0][size]
        each[size] = [value / (line["height"] * line["width"] if pixels else 1) for value in found]
    largest = statistics.median(each[list(row["points"])[-1]])
    for size in row["points"]:
        label = f"{size} x {size}" if pixels else f"{size} + {size}"
        part = spread(each[size], lambda value: quantity(value, "s"))
        ratio = statistics.median(each[size]) / largest
        lines.append(f"| {label} | {quantity(seconds[size], 's')} | {part} | {ratio:.2f} |")
    return lines


def machine(row):
    found = row["machine"]
    return (
        f"{found['model']}, {found['cores']} cores, {found['architecture']} with {row['simd']}, L2 {found['l2']}, "
        f"L3 {found['l3']}, {found['memory_bytes'] / 2**30:.0f} GiB, {found['system']}"
    )


def software(row):
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())


def commit(row):
    return row["commit"][:12] + (" and changes" if row["changed"] else "")


def same(rows, text):
    """What all rows say alike in one line, else a line for each that differs."""
    by_text = {}
    for row in rows:
        by_text.setdefault(text(row), []).append(row["name"])
    if len(by_text) == 1:
        return list(by_text)
    return [f"{said} ({', '.join(names)})" for said, names in by_text.items()]


def render(rows):
    """All of TABLE.md from all raw results."""
    of = lambda kind: [row for row in rows if row["kind"] == kind]
    lines = ["# Side by side", ""]
    lines += ["Written by `benchmarks/run.py`; how to read and repeat it: [README](../README.md).", ""]
    lines += [f"- machine: {text}" for text in same(rows, machine)]
    lines += [f"- software: {text}" for text in same(rows, software)]
    dates = sorted(row["date"] for row in rows)
    lines.append(f"- date: {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else ""))
    lines += [f"- commit: {text}" for text in same(rows, commit)]
    lines += ["", "Medians (least - most). Times are per image (of a step, forward pass or sampling) or per query."]
    lines += ["A ratio above 1 is in favor of retrack.", ""]
    if of("versus"):
        lines += [*versus(of("versus")), ""]
    if of("limit"):
        lines += [*limits(of("limit")), ""]
    if of("series"):
        lines += ["How the cost grows: 1.00 in the last column at every size is exactly linear."]
        lines += ["Below 1 it grows faster, above 1 small sizes carry a fixed cost.", ""]
        for row in of("series"):
            lines += [*series(row), ""]
    lines += ["## Commands", ""]
    lines += ["Each with when it ran and how many cores others kept busy as it began, which should be near 0.", ""]
    for row in rows:
        began = f"{row['date']}, {row['busy_cores']:.1f} cores busy"
        lines.append(f"**{row['name']}** ({began}): `benchmarks/run.py --only {row['name']}`")
        lines += ["", *(f"    {shlex.join(command)}" for command in row["commands"]), ""]
    return "\n".join(lines).rstrip() + "\n"
