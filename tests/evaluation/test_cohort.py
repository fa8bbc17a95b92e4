"""Patients with several cases, and strata: intervals over patients, and the gap between the best and the worst."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.errors import DatasetError, SettingsError
from medfcn.evaluation import Definitions, LabelScores, ScoreTable, evaluate, read_scores, summarise, write_scores
from medfcn.evaluation.cohort import NOT_STATED, Cohort, find_cohort
from medfcn.evaluation.estimates import bootstrap_intervals, gap_interval, mean_interval
from medfcn.volumes import Volume
from tests.reporting.pages import Page, active_parts

SEED, RESAMPLES = 20_190_710, 2000


def other_notes(table):
    """The notes but for that on equal references: the phantoms of all cases are one."""
    return tuple(note for note in table.notes if not note.startswith("one volume under several names"))


def row(case, dice, label="organ"):
    return LabelScores(case, label, "ok", *[dice] * 5, 1.0, 1.0, *[1.0] * 4, dice)


def twice(values):
    """Each value in two cases of one patient: `p00_a`, `p00_b` and so on."""
    rows = [row(f"p{number:02}_{side}", value) for number, value in enumerate(values) for side in "ab"]
    return rows, Cohort.of_groups({each.case: each.case[:3] for each in rows})


def by_hand(values, patients, statistic):
    """The interval of a statistic over resampled patients, one resample after the other."""
    of = {name: [v for v, p in zip(values, patients, strict=True) if p == name] for name in patients}
    clusters = sorted(of.values(), key=lambda cases: (np.mean(cases), len(cases)))
    draws = np.random.default_rng(SEED).integers(0, len(clusters), (RESAMPLES, len(clusters)), dtype=np.int32)
    found = [statistic([v for place in places for v in clusters[place]]) for places in draws]
    return np.quantile(found, [0.025, 0.975])


@pytest.mark.parametrize("count", [5, 6, 21])
@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_a_case_are_no_evidence_once_patients_are_stated(count, copies):
    values = np.sort(np.random.default_rng(count).uniform(0.5, 1, count))
    single = bootstrap_intervals(values)
    copied = np.repeat(values, copies)
    names = [f"p{number}" for number in range(count) for _ in range(copies)]
    assert bootstrap_intervals(copied, names) == pytest.approx(single, abs=1e-12)
    naive = bootstrap_intervals(copied)
    # The interval of the mean flatters by the root of the number of copies, give or take the resampling.
    assert (single[1] - single[0]) / (naive[1] - naive[0]) == pytest.approx(math.sqrt(copies), rel=0.12)


def test_intervals_over_patients_are_those_of_resampling_patients_with_all_their_cases():
    random = np.random.default_rng(3)
    patients = [f"p{number}" for number in random.integers(0, 9, 30)]
    level = {name: random.uniform(0.5, 0.9) for name in set(patients)}
    values = [level[name] + random.uniform(0, 0.1) for name in patients]
    order = np.argsort(values)
    values, patients = np.array(values)[order], [patients[place] for place in order]
    low, high, median_low, median_high = bootstrap_intervals(values, patients)
    assert (low, high) == pytest.approx(by_hand(values, patients, np.mean))
    assert (median_low, median_high) == pytest.approx(by_hand(values, patients, np.median))


def test_a_case_a_patient_is_no_grouping_and_fewer_than_five_patients_give_no_interval():
    values = np.linspace(0.5, 0.9, 8)
    assert bootstrap_intervals(values, list("abcdefgh")) == bootstrap_intervals(values)
    assert all(map(math.isnan, bootstrap_intervals(values, list("aabbccdd"))))
    assert not any(map(math.isnan, bootstrap_intervals(values, list("aabbccde"))))


def test_names_of_patients_and_the_order_of_cases_change_no_interval():
    rows, cohort = twice([0.5, 0.6, 0.65, 0.8, 0.9, 0.95])
    renamed = Cohort({case: patient[::-1] for case, patient in cohort.patients.items()})
    first, second = (
        json.dumps(summarise(table, Definitions(), cohort=of).to_json())
        for table, of in ((rows, cohort), (rows[::-1], renamed))
    )
    assert first == second


def test_a_summary_says_how_many_patients_its_cases_are_of(tmp_path):
    rows, cohort = twice(np.linspace(0.5, 0.9, 40))
    table = ScoreTable(tuple(rows), cohort=cohort)
    single = ScoreTable(tuple(row(f"p{number:02}", d) for number, d in enumerate(np.linspace(0.5, 0.9, 40))))
    share, alone = (each.summary()["organ"].shares["dice"] for each in (table, single))
    assert (share.mean_low, share.mean_high) == pytest.approx((alone.mean_low, alone.mean_high))
    assert (share.cases, table.summary()["organ"].patients) == (80, 40)
    assert "80 cases of 40 patients" in table.to_text()
    assert "Intervals are over patients" in table.to_text()
    write_scores(table, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["labels"]["organ"]["patients"] == 40
    assert "patients" in summary["interval"]
    assert read_scores(tmp_path).cohort == cohort
    # Without patients nothing is added to the file.
    write_scores(single, tmp_path, overwrite=True)
    assert "patients" not in (tmp_path / "summary.json").read_text()


def save(folder, masks):
    folder.mkdir(parents=True, exist_ok=True)
    for case, mask in masks.items():
        Volume(mask, np.eye(4)).save(folder / f"{case}.nii.gz")


def organ(missing):
    """A cube of 64 voxels without some of them: Dice 2 (64 − n) / (128 − n)."""
    mask = np.zeros((8, 8, 8), dtype=np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    mask[2, 2, 2 : 2 + missing] = 0
    return mask


PATIENTS = ("GE", "GE", "GE", "GE", "GE", "Siemens", "Siemens", "Siemens", "Siemens", "Siemens", "", "")
CASES = {f"P{number}_{side}": scanner for number, scanner in enumerate(PATIENTS) for side in ("left", "right")}
MISSING = {"GE": 0, "Siemens": 4, "": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """24 cases of 12 patients, two scanners and two patients without one; and two sets of masks."""
    root = tmp_path_factory.mktemp("cohort")
    save(root / "references", dict.fromkeys(CASES, organ(0)))
    save(root / "new", {case: organ(MISSING[scanner]) for case, scanner in CASES.items()})
    save(root / "old", {case: organ(3) for case in CASES})
    lines = [f"P{number},{scanner}" for number, scanner in enumerate(PATIENTS)]
    (root / "cohort.csv").write_text("\n".join(["id,scanner", *lines]))
    (root / "groups.csv").write_text("\n".join(["id,group", *(f"{case},{case.split('_')[0]}" for case in CASES)]))
    return root


def test_ids_that_share_a_stem_are_said_unless_the_patients_are_stated(folders):
    table = evaluate(folders / "new", folders / "references", labels="organ=1")
    (note,) = other_notes(table)
    assert note.startswith("24 cases seem to be of 12 patients by their ids: P0_left, P0_right (P0)")
    assert "--group-by stem" in note
    assert "intervals too narrow" in note
    assert table.summary()["organ"].patients is None
    few = evaluate(folders / "new", folders / "references", labels="organ=1", cases=["P0_left", "P1_left"])
    assert not any("patients" in note for note in few.notes)
    stated = {case: case.split("_")[0] for case in CASES}
    for how in (
        {"group_by": "stem"},
        {"groups": "stem"},
        {"group_by": "^P[0-9]+"},
        {"groups": r"^(P\d+)_"},
        {"groups": folders / "groups.csv"},
        {"groups": str(folders / "groups.csv")},
        {"groups": stated},
    ):
        grouped = evaluate(folders / "new", folders / "references", labels="organ=1", **how)
        assert other_notes(grouped) == ()
        assert grouped.cohort.patients == stated
        assert grouped.summary()["organ"].patients == 12
        assert grouped.rows == table.rows
    alone = evaluate(folders / "new", folders / "references", labels="organ=1", group_by="none")
    assert (other_notes(alone), alone.summary()["organ"].patients) == ((), None)


def test_groups_that_cannot_be_are_refused(folders):
    masks = folders / "new", folders / "references"
    with pytest.raises(SettingsError, match="groups and group_by are given together"):
        evaluate(*masks, groups=folders / "groups.csv", group_by="stem")
    with pytest.raises(DatasetError, match="P0_left: group_by= x does not match"):
        evaluate(*masks, group_by="x")
    with pytest.raises(DatasetError, match="no patient for P10_left"):
        evaluate(*masks, groups={"P0_left": "P0", "P0_right": "P0"})
    with pytest.raises(medfcn.MedfcnError, match="no such file"):
        evaluate(*masks, groups="gruops.csv")


def test_a_table_of_references_states_patients_and_strata(folders, tmp_path):
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "image", "label", "group", "scanner"))
        for case, scanner in CASES.items():
            path = tmp_path / f"{case}.nii.gz"
            Volume(organ(0), np.eye(4)).save(path)
            rows.writerow((case, path.name, f"label_{path.name}", case.split("_")[0], scanner))
            Volume(organ(0), np.eye(4)).save(tmp_path / f"label_{path.name}")
    table = evaluate(folders / "new", tmp_path / "cases.csv", labels="organ=1", by="scanner")
    assert other_notes(table) == ()
    assert table.summary()["organ"].patients == 12
    assert list(table.summary().strata[0].summaries) == ["GE", "Siemens", NOT_STATED]
    with pytest.raises(DatasetError, match="by scaner: there is no such column; did you mean 'scanner'"):
        evaluate(folders / "new", tmp_path / "cases.csv", labels="organ=1", by="scaner")


def test_every_stratum_has_a_row_and_an_interval_and_those_without_a_value_are_one(folders):
    table = evaluate(
        folders / "new", folders / "references", labels="organ=1", group_by="stem", by=["scanner"],
        cohort=folders / "cohort.csv",
    )  # fmt: skip
    (strata,) = table.summary().strata
    worst = 2 * 60 / 124
    dice = {value: summary.shares["dice"] for value, summary in strata.summaries.items()}
    assert [(value, share.cases) for value, share in dice.items()] == [("GE", 10), ("Siemens", 10), (NOT_STATED, 4)]
    assert [summary.patient_count for summary in strata.summaries.values()] == [5, 5, 2]
    assert (dice["Siemens"].mean, dice["Siemens"].mean_low) == (pytest.approx(worst), pytest.approx(worst))
    assert math.isnan(dice[NOT_STATED].mean_low)
    gap = strata.gaps[0]
    assert (gap.metric, gap.best, gap.worst) == ("dice", "GE", "Siemens")
    assert (gap.difference, gap.low, gap.high) == pytest.approx((1 - worst,) * 3)
    text = table.to_text()
    assert f"gap in Dice {1 - worst:.3f} ({1 - worst:.3f} – {1 - worst:.3f}), GE − Siemens" in text
    assert "GE (5 patients), Siemens (5 patients), not stated (2 patients, no interval)" in text


def test_a_stratum_of_which_no_case_could_be_scored_keeps_its_row(tmp_path):
    right = {case: (organ(0), np.eye(4)) for case in "abcd"}
    reference = right | {"c": (organ(0) * 0.5, np.eye(4))}  # no mask
    prediction = right | {"d": (organ(0)[:4], np.eye(4))}  # on another grid, which is a miss
    (tmp_path / "cohort.csv").write_text("id,site\na,north\nb,north\nc,south\nd,west\n")
    table = evaluate(prediction, reference, labels="organ=1", by="site", cohort=tmp_path / "cohort.csv")
    assert [case for case, _ in table.failures] == ["c", "d"]
    found = table.summary().strata[0].summaries
    assert [(value, of.cases, of.failed, of.scored) for value, of in found.items()] == [
        ("north", 2, 0, 2),
        ("south", 1, 1, 0),
        ("west", 1, 0, 1),
    ]
    assert re.search(r"south +0 of 1 +0 ", table.to_text())


def test_strata_are_of_cases_where_no_patients_are_stated():
    values = {"GE": [0.9] * 6, "Siemens": [0.8] * 3}
    rows = [row(f"{scanner}{number}", d) for scanner, of in values.items() for number, d in enumerate(of)]
    scanners = {"scanner": {each.case: each.case.rstrip("0123456789") for each in rows}}
    text = ScoreTable(tuple(rows), cohort=Cohort(columns=scanners)).to_text()
    assert "patient" not in text.partition("scanner")[2]
    assert "few cases, so means and intervals are uncertain: GE (6 cases), Siemens (3 cases, no interval)" in text
    twins = {each.case: each.case[:-1] + str(int(each.case[-1]) // 2) for each in rows}
    text = ScoreTable(tuple(rows), cohort=Cohort(twins, scanners)).to_text()
    assert re.search(r"scanner +cases +patients +missed", text)
    assert "GE (3 patients, no interval), Siemens (2 patients, no interval)" in text


def test_a_gap_to_a_stratum_without_an_interval_does_not_hide_the_gap_between_the_others():
    scores = {"GE": [0.9] * 6, "Siemens": [0.8] * 6, "Philips": [0.3]}
    rows = [row(f"{scanner}{number}", d) for scanner, of in scores.items() for number, d in enumerate(of)]
    columns = {"scanner": {each.case: each.case.rstrip("0123456789") for each in rows}}
    (strata,) = ScoreTable(tuple(rows), cohort=Cohort(columns=columns)).summary().strata
    first, second = (gap for gap in strata.gaps if gap.metric == "dice")
    assert (first.best, first.worst, first.difference) == ("GE", "Philips", pytest.approx(0.6))
    assert math.isnan(first.low)
    assert (second.best, second.worst, second.without_few) == ("GE", "Siemens", True)
    assert (second.low, second.high) == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize("written", ["", "NA", "na", "N/A", "None", "NONE", "-", " - ", "NaN"])
def test_what_tables_write_for_an_unknown_value_is_not_stated(tmp_path, written):
    (tmp_path / "cohort.csv").write_text(f"id,site\na,north\nb,{written}\nc,nantes\n")
    cohort = find_cohort({}, ["a", "b", "c"], groups={name: name for name in "abc"}, by=["site"],
                         table=tmp_path / "cohort.csv")  # fmt: skip
    assert cohort.columns["site"] == {"a": "north", "b": NOT_STATED, "c": "nantes"}


def test_a_value_counts_where_only_the_case_or_only_its_patient_states_it(folders, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("id,scanner\nP0,GE\nP0_left,\nP0_right,GE\nP1,n/a\nP1_left,Siemens\n")
    cohort = evaluate(
        folders / "new", folders / "references", labels="organ=1", group_by="stem", by="scanner", cohort=table
    ).cohort
    stated = {case: value for case, value in cohort.columns["scanner"].items() if value != NOT_STATED}
    assert stated == {"P0_left": "GE", "P0_right": "GE", "P1_left": "Siemens"}


@pytest.mark.parametrize("unknown", [0.1, 1.0], ids=["worst", "best"])
def test_cases_without_a_value_are_no_end_of_a_gap(unknown):
    scores = {"GE": [0.9] * 6, "Siemens": [0.8] * 6, NOT_STATED: [unknown] * 6}
    rows = [row(f"{scanner}{number}", d) for scanner, of in scores.items() for number, d in enumerate(of)]
    columns = {"scanner": {each.case: each.case.rstrip("0123456789") for each in rows}}
    (strata,) = ScoreTable(tuple(rows), cohort=Cohort(columns=columns)).summary().strata
    assert list(strata.summaries) == ["GE", "Siemens", NOT_STATED]
    gaps = [(gap.metric, gap.best, gap.worst, gap.difference, gap.without_few) for gap in strata.gaps]
    assert gaps == [(metric, "GE", "Siemens", pytest.approx(0.1), False) for metric in ("dice", "nsd")]
    # One stated value has no gap.
    cohort = Cohort(
        columns={"scanner": {case: of.replace("Siemens", NOT_STATED) for case, of in columns["scanner"].items()}}
    )
    assert ScoreTable(tuple(rows), cohort=cohort).summary().strata[0].gaps == ()


def test_the_interval_of_a_gap_is_that_of_theory_and_pairs_images_of_the_same_patients():
    random = np.random.default_rng(5)
    first, second = random.normal(0.88, 0.05, 300), random.normal(0.80, 0.08, 200)
    low, high = gap_interval(first, [f"a{n}" for n in range(300)], second, [f"b{n}" for n in range(200)])
    half = 1.96 * math.sqrt(first.var() / 300 + second.var() / 200)
    mean = first.mean() - second.mean()
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=half / 6)
    # Two phases of the same patients differ by 0.1 in each: the gap has no other value.
    names = [f"a{n}" for n in range(300)]
    assert gap_interval(first, names, first - 0.1, names) == pytest.approx((0.1, 0.1))
    there, back = gap_interval(first, names, second, names[:200]), gap_interval(second, names[:200], first, names)
    assert there == pytest.approx((-back[1], -back[0]), abs=half / 6)
    assert mean_interval(-first, names) == pytest.approx(tuple(-end for end in mean_interval(first, names))[::-1])


def test_columns_that_cannot_be_are_refused(folders, tmp_path):
    masks = folders / "new", folders / "references"
    table = tmp_path / "table.csv"
    with pytest.raises(SettingsError, match=r"by scanner: the references are no table.*cohort=FILE"):
        evaluate(*masks, by="scanner")
    with pytest.raises(DatasetError, match="no id in it is that of a case or patient, such as 'P0_left'"):
        evaluate(*masks, by="scanner", cohort=folders / "cohort.csv")  # its ids are patients, which nobody stated
    table.write_text("id,scanner\nP0_left,GE\nP0_left,Siemens\n")
    with pytest.raises(DatasetError, match="line 3: P0_left has two values of scanner, 'GE' and 'Siemens'"):
        evaluate(*masks, by="scanner", cohort=table)
    for by in ({"group_by": "stem"}, {"groups": folders / "groups.csv"}):  # of the case and of its patient
        for rows in ("P0_left,GE\nP0,Siemens\n", "P0,Siemens\nP1,GE\nP0_left,GE\n"):
            table.write_text(f"id,scanner\n{rows}")
            lines = {line.split(",")[0]: number for number, line in enumerate(rows.splitlines(), start=2)}
            two = f"'GE' (line {lines['P0_left']}: P0_left) and 'Siemens' (line {lines['P0']}: P0)"
            with pytest.raises(DatasetError, match=re.escape(f"P0_left has two values of scanner, {two}")) as error:
                evaluate(*masks, by="scanner", cohort=table, **by)
            assert (error.value.code, error.value.field) == ("TABLE_BROKEN", "scanner")
            assert "\n" not in str(error.value)
    table.write_text("id,scanner\nP0_left,GE\nP0_right, n/a\n")
    found = evaluate(*masks, by="scanner", cohort=table).summary().strata[0].summaries
    assert [(value, summary.cases) for value, summary in found.items()] == [("GE", 1), (NOT_STATED, 23)]


def test_the_command_puts_strata_and_comparison_into_table_summary_and_report(folders, tmp_path):
    words = ["evaluate", folders / "new", folders / "references", "-o", tmp_path / "out", "--labels", "organ=1"]
    words += ["--groups", folders / "groups.csv", "--by", "scanner", "--cohort", folders / "cohort.csv"]
    done = CliRunner().invoke(main, [str(word) for word in [*words, "--compare", folders / "old"]])
    assert done.exit_code == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    strata = summary["by"]["scanner"]["labels"]["organ"]["strata"]
    assert {value: of["patients"] for value, of in strata.items()} == {"GE": 5, "Siemens": 5, NOT_STATED: 2}
    assert summary["by"]["scanner"]["labels"]["organ"]["gaps"][0]["best"] == "GE"
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["sides"] == {"A": "new", "B": "old"}
    assert comparison["difference"].startswith("A − B: new − old, over the cases scored in both (24 cases of 12 pa")
    page = Page((tmp_path / "out" / "report.html").read_text("utf-8"))
    assert active_parts(page) == []
    for text in (" ".join(done.stdout.split()), page.text):
        assert "24 cases of 12 patients" in text
        assert "Siemens" in text
        assert "A − B: new − old" in text
        assert "Holm, for 4 tests" in text
    assert "By scanner" in page.text
    assert {"strata", "comparison"} <= {attributes.get("id") for _, attributes in page.elements}


HEART = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "heart_cine" / "labels"


@pytest.mark.skipif(not HEART.exists(), reason="../shared/data is absent")
def test_two_frames_of_a_heart_are_one_patient_and_diagnoses_are_strata():
    cases = sorted(path.name.removesuffix(".nii.gz") for path in HEART.glob("*.nii.gz"))
    table = ScoreTable(tuple(row(case, 0.5) for case in cases))
    names = ("dilated", "hypertrophic", "infarcted", "healthy")  # patients 1 to 10, 21 to 30, 41 to 50, 61 to 70
    diagnoses = {case: names[int(case[7:10]) // 20] for case in cases}
    masks = {case: (np.ones((1, 1, 1), dtype=np.uint8), np.eye(4)) for case in cases}
    grouped = evaluate(masks, masks, group_by="stem")
    cohort = Cohort(grouped.cohort.patients, {"diagnosis": diagnoses})
    (strata,) = ScoreTable(table.rows, cohort=cohort).summary().strata
    counts = {value: (of.cases, of.patient_count) for value, of in strata.summaries.items()}
    assert counts == dict.fromkeys(sorted(names), (20, 10))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group_by": "stem"}, "the groups change nothing"),
        ({"group_by": "none"}, ""),
        ({"group_by": "(case)"}, ""),
        ({"groups": {"case_1": "a", "case_2": "b"}}, ""),
        ({"cohort": "sites.csv"}, "no column of it is named"),
        ({}, ""),
    ],
    ids=["stem", "none", "all in one", "mapping", "cohort", "nothing"],
)
def test_groups_and_tables_that_change_nothing_say_so(tmp_path, options, said):
    (tmp_path / "sites.csv").write_text("id,site\ncase_1,A\ncase_2,B\n")
    mask = Volume(np.ones((3, 3, 3), dtype=np.uint8), np.eye(4))
    masks = dict.fromkeys(("case_1", "case_2"), mask)
    options = {**options, "cohort": tmp_path / "sites.csv"} if "cohort" in options else options
    notes = [note for note in evaluate(masks, masks, labels="organ=1", **options).notes if "nothing" in note]
    assert len(notes) == bool(said)
    assert all(said in note for note in notes)
