"""The report of the check, as text and as JSON."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stereo.data.check.pair import BIN_WIDTH, EDGES, Finding
from stereo.data.sets.layouts import Part
from stereo.data.sets.listing import PartListing
from stereo.data.sets.sample import SampleFiles
from stereo.system import console

_SHOWN_PER_KIND = 20


@dataclass
class Section:
    """One part of a data set in one split and pass."""

    part: str  # its title
    layout: str | None  # name of the tree; None where there is but one form
    split: str | None  # name of the split
    render_pass: str | None  # name of the pass
    samples: list[SampleFiles] = field(default_factory=list)  # complete pairs
    published: int | None = None  # how many there should be; None if we know no figure
    unused: int = 0  # pairs left out as unusable
    # for each group, how many pairs there are and should be
    groups: dict[str, tuple[int, int]] = field(default_factory=dict)
    # kind, pair and detail of everything wrong
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # remarks that are no faults
    sizes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def of_listing(
        cls, listing: PartListing, split: str | None, render_pass: str | None
    ) -> "Section":
        """Return the section of a part that was found."""
        section = cls(
            listing.part.title,
            listing.layout.name,
            split,
            render_pass,
            listing.samples,
            listing.split.count,
            listing.unused,
        )
        for missing in listing.missing:
            section.faults.append(("missing", missing.name, f"{missing.path}: no such file"))
        if listing.split.groups is not None:
            published = listing.split.groups[1]
            section.groups = {
                group: (listing.group_counts.get(group, 0), count)
                for group, count in published.items()
            }
        section._note_partial("right disparity", [s.disparity_right for s in section.samples])
        section._note_partial("occlusion mask", [s.nonoccluded for s in section.samples])
        return section

    @classmethod
    def of_list(cls, title: str, samples: list[SampleFiles]) -> "Section":
        """Return the section of a list of pairs, some of whose files may be missing."""
        section = cls(title, None, None, None, samples)
        for files in samples:
            for path in _all_files(files):
                if not path.exists():
                    section.faults.append(("missing", files.name, f"{path}: no such file"))
        return section

    @classmethod
    def of_absent(cls, part: Part, split: str | None, render_pass: str | None) -> "Section":
        """Return the section of a missing part."""
        counts = [
            known.count
            for layout in part.layouts
            for name, known in layout.splits.items()
            if name == split
        ]
        return cls(part.title, None, split, render_pass, published=counts[0])

    def _note_partial(self, what: str, values: list[Any]) -> None:
        there = sum(1 for value in values if value)
        if 0 < there < len(values):
            self.notes.append(f"{self.label}: {what} for {there} of {len(values)} pairs")

    @property
    def label(self) -> str:
        """Unique label of the section."""
        parts = [self.part, self.split, self.render_pass and f"{self.render_pass} pass"]
        return " ".join(part for part in parts if part)

    def whole_pairs(self) -> list[SampleFiles]:
        """Return the pairs without a missing file."""
        lacking = {name for kind, name, _ in self.faults if kind == "missing"}
        return [files for files in self.samples if files.name not in lacking]

    def include(self, name: str, finding: Finding) -> None:
        """Add the findings of one pair."""
        self.faults += [(fault.kind, name, fault.detail) for fault in finding.faults]
        if finding.size is not None:
            self.sizes[finding.size] += 1
        if finding.pixels:
            self.findings.append(finding)

    def range_faults(self, low: int, high: int) -> list[str]:
        """Return a fault if no pixel of the section could be trained on or scored."""
        valid = sum(f.valid for f in self.findings)
        groups = {
            f"below {low} px": sum(f.below for f in self.findings),
            "0": 0 if low else sum(f.zero for f in self.findings),
            f"at {high} px or above": sum(f.beyond for f in self.findings),
        }
        if not valid or sum(groups.values()) < valid:
            return []
        shares = ", ".join(
            f"{100 * count / valid:.4g} % {kind}" for kind, count in groups.items() if count
        )
        return [
            f"{self.label}: no disparity lies between {low} and {high} px: {shares}; fix the sign "
            "or the scale of the ground truth, or name another --min-disparity or --max-disparity"
        ]

    def count_faults(self) -> list[str]:
        """Compare the number of pairs, unusable ones included, with the published one."""
        found = len(self.samples) + self.unused
        texts = []
        if self.published is not None and found != self.published:
            texts.append(f"{self.label}: {found:,} complete pairs, {self.published:,} published")
        for group, (count, published) in self.groups.items():
            if count != published:
                texts.append(f"{self.label} {group}: {count:,} pairs, {published:,} published")
        return texts

    def facts(self) -> dict[str, Any]:
        """Return the section's part of the JSON."""
        return {
            "part": self.part,
            "layout": self.layout,
            "split": self.split,
            "pass": self.render_pass,
            "pairs": len(self.samples),
            "published": self.published,
            "unused": self.unused,
            "groups": {
                group: {"pairs": count, "published": published}
                for group, (count, published) in self.groups.items()
            },
            "sizes": dict(sorted(self.sizes.items())),
            "disparity": self._disparity(),
        }

    def _disparity(self) -> dict[str, Any] | None:
        if not self.findings:
            return None
        valid = sum(f.valid for f in self.findings)
        beyond = sum(f.beyond for f in self.findings)
        columns = zip(*(f.histogram for f in self.findings), strict=True)
        return {
            "maps": len(self.findings),
            "valid_pixels": valid,
            "valid_percent": 100 * valid / sum(f.pixels for f in self.findings),
            "lowest": min((f.lowest for f in self.findings if f.lowest is not None), default=None),
            "highest": max(
                (f.highest for f in self.findings if f.highest is not None), default=None
            ),
            "beyond_max_percent": 100 * beyond / valid if valid else None,
            "histogram": {
                "below_0": sum(f.negative for f in self.findings),
                "edges": list(EDGES),
                "counts": [sum(column) for column in columns],
            },
        }


@dataclass
class Report:
    """Everything about one root."""

    dataset: str  # its name
    root: Path  # its folder
    max_disparity: int  # length of the range of disparities, pixels
    min_disparity: int  # its start, pixels
    partial: bool  # whether too few pairs are a remark rather than a fault
    sections: list[Section] = field(default_factory=list)  # what was found
    notes: list[str] = field(default_factory=list)  # remarks that are no faults
    seen: set[Path] = field(default_factory=set)  # files beside images that some pair has already

    def add(self, sections: list[Section], note: str | None) -> None:
        """Add the sections of one split and pass."""
        self.sections += sections
        self.notes += [note] if note else []

    def facts(self) -> dict[str, Any]:
        """Return what ``data_check.json`` holds."""
        low = self.min_disparity
        counts = [text for section in self.sections for text in section.count_faults()]
        faults = [
            {"kind": kind, "section": section.label, "name": name, "detail": detail}
            for section in self.sections
            for kind, name, detail in section.faults
        ]
        faults = [
            {"kind": "range", "section": section.label, "name": "", "detail": text}
            for section in self.sections
            for text in section.range_faults(low, low + self.max_disparity)
        ] + faults
        if not self.partial:
            faults = [
                {"kind": "count", "section": "", "name": "", "detail": text} for text in counts
            ] + faults
        notes = self.notes + [note for section in self.sections for note in section.notes]
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "max_disparity": self.max_disparity,
            "min_disparity": self.min_disparity,
            "ok": not faults,
            "sections": [section.facts() for section in self.sections],
            "faults_by_kind": dict(sorted(Counter(f["kind"] for f in faults).items())),
            "faults": faults,
            "notes": notes + (counts if self.partial else []),
        }


def report_text(facts: dict[str, Any]) -> str:
    """Return the report for people: a table, histograms, faults, and a verdict."""
    lines = [f"{facts['dataset']} in {facts['root']}", ""]
    header = ["part", "layout", "split", "pass", "pairs", "published", "sizes"]
    rows = [
        [
            *(section[key] or "-" for key in ("part", "layout", "split", "pass")),
            str(section["pairs"]),
            "-" if section["published"] is None else str(section["published"]),
            _sizes(section["sizes"]),
        ]
        for section in facts["sections"]
    ]
    lines += [console.table(header, rows), ""]
    for section in facts["sections"]:
        if section["disparity"]:
            end = facts["min_disparity"] + facts["max_disparity"]
            lines += [*_disparity_lines(section, end), ""]
    lines += [f"note: {note}" for note in facts["notes"]]
    for kind, count in facts["faults_by_kind"].items():
        lines.append(f"{kind}: {count}")
        shown = [fault for fault in facts["faults"] if fault["kind"] == kind][:_SHOWN_PER_KIND]
        lines += [f"  {_named(fault)}" for fault in shown]
        if count > len(shown):
            lines.append(f"  and {count - len(shown)} more; data_check.json has all (--output)")
    total = sum(facts["faults_by_kind"].values())
    lines.append("nothing wrong" if facts["ok"] else f"{total} fault{'' if total == 1 else 's'}")
    return "\n".join(lines)


def _named(fault: dict[str, str]) -> str:
    return f"{fault['name']}: {fault['detail']}" if fault["name"] else fault["detail"]


def _sizes(sizes: dict[str, int]) -> str:
    common = sorted(sizes, key=lambda size: (-sizes[size], size))
    return ", ".join(common[:3]) + (f" and {len(common) - 3} more" if len(common) > 3 else "")


def _disparity_lines(section: dict[str, Any], end: int) -> list[str]:
    facts = section["disparity"]
    title = " ".join(str(section[key]) for key in ("part", "split") if section[key])
    if not facts["valid_pixels"]:
        return [f"{title}: no ground truth in {facts['maps']} maps"]
    lines = [
        f"{title}: disparity {facts['lowest']:.2f} to {facts['highest']:.2f} px in {facts['maps']} "
        f"maps, {facts['valid_percent']:.2f} % of pixels valid, "
        f"{facts['beyond_max_percent']:.2f} % of these at {end} px or above"
    ]
    if below := facts["histogram"]["below_0"]:
        lines.append(f"  {'below 0':12} {100 * below / facts['valid_pixels']:6.2f} %")
    counts = facts["histogram"]["counts"]
    last = max((i for i, count in enumerate(counts) if count), default=-1)
    for low, count in list(zip(facts["histogram"]["edges"], counts, strict=True))[: last + 1]:
        bounds = f"{low:4d} .. {low + BIN_WIDTH:4d}" if low != EDGES[-1] else f"{low:4d} and up"
        share = count / facts["valid_pixels"]
        lines.append(f"  {bounds:12} {100 * share:6.2f} %")
    return lines


def _all_files(files: SampleFiles) -> list[Path]:
    optional = (files.disparity, files.disparity_right)
    known = [path for path in optional if path is not None]
    return [files.left, files.right, *known, *(path for path, _ in files.nonoccluded)]
