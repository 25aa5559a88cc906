"""How people click: the rates that `backtal clicks simulate --like human` draws from, and how close it comes.

    python benchmarks/human_clicks.py THUMOS14

THUMOS14 is the dataset folder with the annotators' click files. Prints the counts of all files together, as they stand
in `backtal/clicks/human.py`, and the same of clicks simulated on the same videos, a seed for each file.
"""

import argparse
from pathlib import Path

import numpy as np

from backtal.clicks import background_stretches, simulate_human_clicks
from backtal.data import DatasetFolder, click_report
from backtal.data.click_stats import clicks_inside_actions


def counts(tracks, videos):
    """The rows of a table: name and counts, of the click files of several annotators together."""
    stats = list(click_report(tracks, videos).annotators.values())
    for groups in zip(*(s.stretches for s in stats), strict=True):
        number, missed, several = (sum(column) for column in list(zip(*groups, strict=True))[1:])
        yield f"stretches of {groups[0].name}", f"{missed} missed, {several} clicked twice, of {number}"
    several = [n for found in tracks.values() for n in in_a_stretch(found, videos) if n > 1]
    yield "more than two in a stretch", f"{sum(several) - 2 * len(several)} of {sum(several) - len(several)} more"
    clicks, inside, edge = (sum(getattr(s.count, name) for s in stats) for name in ("judged", "inside", "on_edge"))
    yield "clicks inside actions", f"{inside - edge}, and {edge} on their ends, of {clicks}"
    yield "  tenths of the action", " ".join(map(str, np.histogram(list(places(tracks, videos)), 10, (0, 1))[0]))
    none = [s.runs_between[0] / sum(s.runs_between) for s in stats]
    yield "pairs of clicks without an action", " ".join(f"{100 * share:.1f} %" for share in none)


def in_a_stretch(tracks, videos):
    """How many clicks each stretch of background holds."""
    inside = {(hit.video_id, hit.click) for hit in clicks_inside_actions(tracks, videos)}
    for name, track in tracks.items():
        times = [click.time for click in track.clicks if (name, click) not in inside]
        for start, end in background_stretches(videos[name].ground_truth, videos[name].duration):
            yield sum(start <= time <= end for time in times)


def places(tracks, videos):
    """Where clicks inside actions, but those on their ends, lie in the shortest action around them, from 0 to 1."""
    for found in tracks.values():
        for hit in clicks_inside_actions(found, videos):
            if hit.on_edge:
                continue
            around = [s for s in videos[hit.video_id].ground_truth if s.start <= hit.click.time <= s.end]
            action = min(around, key=lambda s: s.end - s.start)
            yield (hit.click.time - action.start) / (action.end - action.start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    folder = DatasetFolder(parser.parse_args().data)
    videos = folder.annotations.videos
    people = {path.stem: folder.read_clicks(path) for path in folder.click_paths()}
    simulated = {}
    for seed, (name, tracks) in enumerate(people.items()):
        rng = np.random.default_rng(seed)
        clicked = [videos[video] for video in tracks]
        simulated[name] = {
            v.video_id: simulate_human_clicks(v.video_id, v.ground_truth, v.duration, rng) for v in clicked
        }
    print("| | people | simulated |\n|---|---|---|")
    for (name, real), (_, made) in zip(counts(people, videos), counts(simulated, videos), strict=True):
        print(f"| {name} | {real} | {made} |")


if __name__ == "__main__":
    main()
