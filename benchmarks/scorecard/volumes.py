"""Rows 1 to 5: what volumes are read, refused, cut and put together."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np

import medfcn
from medfcn.errors import MedfcnError
from medfcn.volumes import orientation_of, read_volume, spacing_mm
from scorecard.headers import generated
from scorecard.readers import apart, by_medfcn, by_nibabel, by_simpleitk
from scorecard.work import Work

_ENDINGS = (".nii.gz", ".nii", ".hdr.gz", ".img.gz", ".hdr", ".img", ".seg.nrrd", ".nrrd", ".mha")
_CHUNK = 20
_PLACE_NOTES = ("pixdim", "qform", "sform", "quaternion", "converted", "codes", "intent_code")
_VALUE_NOTES = ("scl_", "intent_code")


def _renamed(content: dict[str, bytes], stem: str) -> dict[str, bytes]:
    """The files of a hostile volume under the name of a case; empty if they are no volume by name."""
    found = {}
    for name, raw in content.items():
        ending = next((ending for ending in _ENDINGS if name.lower().endswith(ending)), "")
        if not ending:
            return {}
        found[stem + ending] = raw
    return found


def _lay(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)


def _good(number: int) -> bytes:
    """A good volume of the numbers 0 to 4, another for each number."""
    from tests.volumes.hostile import SHAPE, good

    return good(voxels=np.random.default_rng(number).integers(0, 5, SHAPE).astype(np.int16))


def hostile_volumes(work: Work) -> str:
    """Row 1: as image, label, prediction and reference, beside good ones."""
    from tests.inference.models import saved, tiny_model
    from tests.volumes.hostile import ACCEPT, corpus

    files = corpus()
    run = saved(tiny_model(), work.place("run"))
    work.least = min(work.least, -(-len(files) // _CHUNK))
    for number in work.loop():
        chunk = files[number * _CHUNK : (number + 1) * _CHUNK]
        at, bad, accepted = work.place(f"chunk_{number}"), set(), set()
        for place, item in enumerate(chunk):
            named = _renamed(item.content, f"bad_{place:02d}")
            if not named:
                continue
            (accepted if item.expected == ACCEPT else bad).add(f"bad_{place:02d}")
            _lay(at / "hostile", named)
            _lay(at / "good", {f"bad_{place:02d}.nii": _good(place)})
        for place, name in enumerate(("good_a.nii", "good_b.nii")):
            for folder in ("hostile", "good"):
                _lay(at / folder, {name: _good(100 + place)})
        work.add("files", len(bad) + len(accepted))
        _as_images(work, run, at, bad, accepted)
        _as_masks(work, at, bad)
    return f"{work.facts.get('files', 0)} files in {work.facts.get('places', 0)} places, {len(work.failures)} wrong"


def _as_images(work: Work, run: Path, at: Path, bad: set[str], accepted: set[str]) -> None:
    """Masks on a folder with hostile images: good ones done, bad ones rows."""
    try:
        done = medfcn.predict(run, at / "hostile", at / "masks", device="cpu", jobs=1)
    except Exception as error:
        work.fail(f"predict: {type(error).__name__}: {error}")
        return
    failed = {case for case, _ in done.failures}
    work.add("places", len(bad) + len(accepted))
    for case in ({"good_a", "good_b"} | accepted) - set(done.predicted):
        line = next((line for name, line in done.failures if name == case), "no row")
        if "network grid" in line:  # read rightly, and too large for this network: lengths in metres
            work.add("too large for the network's grid")
            continue
        work.fail(f"image {at.name}/{case} was to be done: {line}")
    for case in bad - failed:
        work.fail(f"image {at.name}/{case} was to be a row")


def _as_masks(work: Work, at: Path, bad: set[str]) -> None:
    """The same as labels, predictions and references."""
    for kind, images, labels in (("images", "hostile", "good"), ("labels", "good", "hostile")):
        root = at / f"as_{kind}"
        root.mkdir()
        (root / "images").symlink_to(at / images)
        (root / "labels").symlink_to(at / labels)
        try:
            report = medfcn.check(root, labels="a=1+2,b=3+4")
        except Exception as error:
            work.fail(f"check with hostile {kind}: {type(error).__name__}: {error}")
            continue
        named = {problem.case for problem in report.errors}
        work.add("places", len(bad))
        if missing := sorted(bad - named):
            work.fail(f"check with hostile {kind}, {at.name}: no row for {missing}")
        if named & {"good_a", "good_b"}:
            told = [problem.line for problem in report.errors if problem.case.startswith("good")]
            work.fail(f"check with hostile {kind}, {at.name}: a good case has an error: {told}")
    for kind, predictions, references in (("predictions", "hostile", "good"), ("references", "good", "hostile")):
        try:
            table = medfcn.evaluate(at / predictions, at / references, labels="a=1,b=2,c=3,d=4")
        except Exception as error:
            work.fail(f"evaluate with hostile {kind}: {type(error).__name__}: {error}")
            continue
        scored = {row.case for row in table.rows if row.dice == 1.0}
        said = " ".join((*(f"{case}: {line}" for case, line in table.failures), *table.notes))
        work.add("places", len(bad))
        if not {"good_a", "good_b"} <= scored:
            work.fail(f"evaluate with hostile {kind}, {at.name}: a good case is not scored 1")
        if missing := sorted(case for case in bad if case not in said or case in scored):
            work.fail(f"evaluate with hostile {kind}, {at.name}: no word on {missing}")


def two_readers(work: Work) -> str:
    """Row 2: headers that nibabel and SimpleITK place or scale differently."""
    logging.getLogger("nibabel").setLevel(logging.CRITICAL)
    for seed in work.loop():
        header, voxels, as_gzip = generated(seed)
        # In a folder of its own: SimpleITK reads the voxels of another file of that name.
        path = work.place(str(seed)) / ("a.nii.gz" if as_gzip else "a.nii")
        path.write_bytes(header.content(voxels, as_gzip=as_gzip))
        difference = apart(by_nibabel(path), by_simpleitk(path))
        found = by_medfcn(path)
        path.unlink()
        if not difference:
            work.add("refused though both agree" if found.refused else "alike or read by one alone")
            continue
        work.add("differ")
        wanted = _VALUE_NOTES if difference.startswith("values") else _PLACE_NOTES
        about = [note for note in found.notes if any(word in note for word in wanted)]
        answer = f"refused: {found.refused}" if found.refused else "; ".join(about)
        work.add("refused" if found.refused else "noted" if about else "silent")
        work.lines.append(f"{seed}: {', '.join(header.odd) or 'nothing odd'}: {difference}: {answer}")
        if not answer:
            work.fail(f"header {seed} ({', '.join(header.odd)}): {difference}, accepted without a note")
    facts = work.facts
    return (
        f"{facts.get('differ', 0)} of {work.done} differ: {facts.get('refused', 0)} refused, {facts.get('noted', 0)} "
        f"with a note, {facts.get('silent', 0)} in silence"
    )


def damaged_streams(work: Work) -> str:
    """Row 3: 400 truncations and 1,000 bit flips of a compressed volume."""
    from tests.volumes.hostile import good, packed

    random = np.random.default_rng(1)
    voxels = random.normal(100, 20, (24, 20, 16)).astype(np.int16)
    stream = packed(good(voxels=voxels))
    lengths = np.unique(np.linspace(0, len(stream) - 1, 400).astype(int)).tolist()
    bits = random.choice(8 * len(stream), 1000, replace=False).tolist()
    places = [("cut", length) for length in lengths] + [("flip", bit) for bit in bits]
    places = [places[number] for number in random.permutation(len(places))]
    path = work.place("stream") / "a.nii.gz"
    for number in work.loop():
        kind, place = places[number]
        raw = bytearray(stream if kind == "flip" else stream[:place])
        if kind == "flip":
            raw[place // 8] ^= 1 << place % 8
        path.write_bytes(raw)
        try:
            same = np.array_equal(read_volume(path).array, voxels) and kind == "flip"
            work.add(f"{kind}: read, nothing changed")
            if not same:
                work.fail(f"{kind} at {place}: accepted with other voxels")
        except MedfcnError:
            work.add(f"{kind}: refused")
    refused = sum(count for name, count in work.facts.items() if "refused" in name)
    return f"{refused} of {work.done} refused, {work.done - refused - len(work.failures)} read right"


def bombs(work: Work) -> str:
    """Row 4: files that claim or hold gigabytes; CPU seconds and megabytes of a child that reads each twice."""
    from tests.volumes.test_hostile import BOMB, _bombs

    every = list(_bombs().items())
    work.least = min(work.least, len(every))
    for number in work.loop():
        name, content = every[number]
        at = work.place(f"bomb_{number}")
        _lay(at, content)
        done = subprocess.run(
            [sys.executable, "-c", BOMB, at / next(iter(content))], capture_output=True, text=True, check=False
        )
        for file in content:
            (at / file).unlink()
        if done.returncode or "accepted" in done.stdout:
            work.fail(f"{name}: {done.stdout[:100]} {done.stderr[-200:]}")
            continue
        seconds, megabytes = (float(text) for text in done.stdout.split())
        work.facts["most seconds"] = max(work.facts.get("most seconds", 0.0), round(seconds / 2, 2))
        work.facts["most MB"] = max(work.facts.get("most MB", 0.0), round(megabytes, 1))
        if seconds / 2 > 2 or megabytes > 64:
            work.fail(f"{name}: {seconds / 2:.1f} s, {megabytes:.0f} MB")
    facts = work.facts
    return f"{work.done} bombs, at most {facts.get('most seconds', 0)} CPU s and {facts.get('most MB', 0)} MB"


def reassembly(work: Work) -> str:
    """Row 5: random grids in all 48 stored orders, cut along each view, stacked, and brought back."""
    from medfcn.slices.grid import map_to_network, to_native_grid, to_network_grid
    from medfcn.slices.slicing import VIEW_AXIS, slice_volume, stack_slices
    from tests.slices.stored_orders import ORDERS, oblique_affine, stored_in

    seen = set(work.facts.get("orders", ()))
    for number in work.loop():
        random = np.random.default_rng(number)
        shape = tuple(random.integers(1, 24, 3).tolist())
        spacing = tuple(random.uniform(0.3, 4.0, 3).tolist())
        array = random.normal(size=shape).astype(np.float32)
        order = ORDERS[number % 48]
        stored, affine = stored_in(array, oblique_affine(number, spacing), order)
        grid = map_to_network(stored.shape, orientation_of(affine), spacing_mm(affine), (None, None, None))
        on_grid = to_network_grid(stored[None], grid)
        for view in VIEW_AXIS:
            back = stack_slices(slice_volume(on_grid, view), view)
            if not np.array_equal(to_native_grid(back, grid)[0], stored):
                work.fail(f"grid {number}, order {order}, {view}: not the same")
        seen.add(number % 48)
        work.facts["orders"] = sorted(seen)
    return f"{work.done} grids, {len(seen)} of 48 orders, three views each, {len(work.failures)} not exact"
