"""The results of `sed-trt bench` as tables."""

from typing import Any

from .table_parts import alive, framed, printed


def show(kind: str, content: dict[str, Any]) -> None:
    """Print the content of a results file of this kind."""
    tables = {
        "latency": _show_latency,
        "profile": _show_profile,
        "roofline": _show_roofline,
        "sweep": _show_sweep,
    }
    tables[kind](content)


def _show_latency(content: dict[str, Any]) -> None:
    where = content["gpu"] or content["cpu"]
    print(f"{content['preset']} {content['precision']} on {content['backend']}, {where}")
    load, cores = content["load_average"], content["cpu_cores"]
    if load is not None and load > cores / 2 and content["threads"] != 1:
        print(
            f"Other work had the machine (load {load:.1f} on {cores} cores). PyTorch's threads, which wait "
            "for each other, lose most by that, so the ratios flatter sed-trt: measure on an idle machine, "
            "or both with --threads 1."
        )
    for name, reason in content["skipped"].items():
        print(f"{name}: skipped: {reason}")
    table = framed("milliseconds; labels like those of published, %", *_ROW)
    for row in content["results"]:
        for name, figures in row["candidates"].items():
            keys = ("first_call_ms", "p50_ms", "p90_ms", "p99_ms")
            times = ("-" if figures[key] is None else f"{figures[key]:.0f}" for key in keys)
            ratio = row["ours_faster_than"].get(name, {}).get("whole")
            faster = f"{ratio['median']:.2f} ({ratio['q1']:.2f}-{ratio['q3']:.2f})" if ratio else "-"
            alike = figures["agreement"]
            labels = "-" if alike is None else f"{alike:.2f}"
            table.add_row(str(row["categories"]), row["kept"], name, *times, faster, labels)
        for name, error in row["errors"].items():
            table.add_row(str(row["categories"]), row["kept"], name, "failed", *[""] * 5)
            print(f"{row['categories']} categories, kept {row['kept']}: {name}: {error}")
    printed(table)
    _show_once(content["results"])


_ROW = ("names", "kept", "candidate", "first", "p50", "p90", "p99", "ours faster", "alike")


def _show_once(rows: list[dict[str, Any]]) -> None:
    """What was measured once for each vocabulary."""
    table = framed(
        "in a process of its own", "names", "kept", "candidate", "open ms", "first ms", "peak MiB", "GPU MiB"
    )
    for row in rows:
        for name, alone in row.get("alone", {}).items():
            if "error" in alone:
                table.add_row(str(row["categories"]), row["kept"], name, alone["error"])
                continue
            figures = (
                "-" if alone[key] is None else f"{alone[key]:.0f}"
                for key in ("open_ms", "first_ms", "peak_mib", "device_mib")
            )
            table.add_row(str(row["categories"]), row["kept"], name, *figures)
        if "stream_error" in row:
            print(f"{row['categories']} categories, kept {row['kept']}: stream: {row['stream_error']}")
        for name, speed in row.get("images_per_second", {}).items():
            print(f"{row['categories']} categories, kept {row['kept']}, {name}: {speed:.2f} images/s")
    if table.row_count:
        printed(table)


def _show_roofline(content: dict[str, Any]) -> None:
    counts = "/".join(map(str, content["kept"]))
    what = f"{content['preset']} {content['precision']}, {content['categories']} categories, kept {counts}"
    table = framed(what, "design", "stage", "GFLOP", "fewest MB", "fused MB")
    for stage in content["stages"]:
        figures = (f"{stage[key]:.1f}" for key in ("gflop", "fewest_mb", "fused_mb"))
        table.add_row(stage["design"], stage["stage"], *figures)
    printed(table)
    table = framed(
        "milliseconds for a picture", "GPU", "design", "how known", "floor", "fused", "taken", "reached"
    )
    for row in content["results"]:
        times = [f"{row[key]:.2f}" if key in row else "-" for key in ("floor_ms", "fused_floor_ms", "ms")]
        share = f"{100 * row['fraction']:.0f} %" if "fraction" in row else "-"
        table.add_row(row["gpu"], row["design"], row["kind"], *times, share)
    printed(table)


def _show_profile(content: dict[str, Any]) -> None:
    counts = "/".join(map(str, content["kept"]))
    what = f"{content['preset']} {content['precision']}, {content['categories']} categories, kept {counts}"
    table = framed(f"{what}: milliseconds", "stage", "all", *content["kinds"])
    for row in content["results"]:
        kinds = (f"{row['kinds_ms'][kind]:.0f}" for kind in content["kinds"])
        table.add_row(row["stage"], f"{row['ms']:.0f}", *kinds)
    printed(table)


def _show_sweep(content: dict[str, Any]) -> None:
    headers = ("names", "rejection", "alive after", "p50 ms", "decoder ms", "mIoU", "like none, %")
    table = framed(f"{content['preset']} {content['precision']}, {content['scenes']} scenes", *headers)
    for row in content["results"]:
        times = (f"{row[key]:.0f}" for key in ("p50_ms", "decoder_p50_ms"))
        scores = (f"{row['miou']:.2f}", f"{row['agreement']:.2f}")
        table.add_row(str(row["categories"]), row["rejection"], alive(row["kept"]), *times, *scores)
    printed(table)
    for size, policy in content["recommended"].items():
        print(f"{size} names: {policy} is the fastest that loses at most {content['max_drop']:g} points")
