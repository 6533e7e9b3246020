"""From a model to a file and its certificate, or to neither."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import platform
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast, get_args

import torch

from gfocal.config import is_outside
from gfocal.data.dataset import Dataset
from gfocal.data.opening import open_dataset, splits_of
from gfocal.devices import choose_precision, precision_name
from gfocal.errors import UserError, at_least, first_line, unknown
from gfocal.exported import ExportedModel, load_exported
from gfocal.exported.engines import ENGINES, OpenVino
from gfocal.exported.header import FilePrecision, Header
from gfocal.exporting.certificate import LEAST_MATCHED, Certificate, Ranges, sha256_of_weights, versions
from gfocal.exporting.comparing import Side, compare
from gfocal.exporting.writing import measured_on, write
from gfocal.files import sha256_of_file, whole_or_absent
from gfocal.loading import load_inner
from gfocal.model import Model
from gfocal.predictor import Predictor
from gfocal.testing import open_for

log = logging.getLogger(__name__)


def export(
    model: Predictor | str | Path,
    out: str | Path,
    *,
    precision: str = "float32",
    raw: bool = False,
    data: str | Path | Dataset | None = None,
    split: str = "val",
    pictures: int = 50,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Write a model as a file for other runtimes, prove that both find the same, and return the proof.

    out: an .onnx file, or an .xml for OpenVINO, which gets a .bin beside it; the certificate is written beside it, too,
    as NAME.certificate.json. precision: "float32", "float16" or "int8", the last two but for the layers in which edges
    become distributions (an .xml only stores its weights in float16); int8 needs `data`, on whose train split, where
    there is one that opens, it measures ranges of values. raw: without suppression.
    data: what --data takes, or an open data set: the first `pictures` of its split are looked at by both sides, and
    scored; None looks at generated scenes. size: as in `Predictor.predict`, for these pictures; the file takes any.
    progress: called with the number of pictures compared and that of all.
    UserError, and no file, where a float32 file has less than 99.5 % of the detections in common with the model, the
    model cannot be exported as asked, or a package is missing. Where the model finds nothing, the proof is empty: a
    warning says so.

    >>> import gfocal
    >>> model = gfocal.build("gflv2_r18_mini", device="cpu")
    >>> gfocal.export(model, "model.onnx").matched  # doctest: +SKIP
    1.0
    """
    out = Path(out)
    at_least("pictures", pictures, 1)
    _refuse_unknown(out, precision, data)
    _refuse_missing(out, precision)
    proof = out.with_suffix(".certificate.json")
    _refuse_taken(proof, out)
    source = str(model) if isinstance(model, str | Path) else model.recipe.name
    model = _on_cpu(load_inner(model, device="cpu"))
    _refuse_outside(model, raw=raw)
    dataset = open_dataset("scenes", split) if data is None else open_for(model, data, split)
    pictures = min(pictures, len(dataset))
    header = Header(model.recipe, "raw" if raw else "detections", cast("FilePrecision", precision), model.calibration)
    with _folder_for(out) as folder:
        made = Path(folder) / out.name
        log.info("writing %s, which takes a minute or two", out)
        measured, ranges = dataset, None
        if precision == "int8":
            measured, ranges = _for_ranges(model, data, dataset, split=split)
        with _refusals(out):
            write(model, made, header=header, dataset=measured, size=size)
        compared = compare(
            model,
            _in_runtimes(made),
            dataset,
            pictures=pictures,
            size=size,
            score=data is not None,
            progress=None if progress is None else lambda done: progress(done, pictures),
        )
        certificate = Certificate(
            model=source,
            recipe=model.recipe.name,
            content=header.content,
            precision=precision,
            files={file.name: sha256_of_file(file) for file in sorted(made.parent.iterdir())},
            weights=sha256_of_weights(model.detector),
            versions=versions(),
            processor=platform.processor() or platform.machine(),
            data=f"{_name(data)} ({split})",
            pictures=pictures,
            ranges=ranges,
            **compared._asdict(),
        )
        _refuse_unlike(certificate, out)
        certificate.save(made.with_name(proof.name))
        # the certificate comes last: where it is, all that it speaks of is, too
        proof.unlink(missing_ok=True)
        for file in (*certificate.files, proof.name):
            with whole_or_absent(out.with_name(file)) as scratch:
                shutil.move(made.with_name(file), scratch)
    return certificate


def _on_cpu(model: Model) -> Model:
    """Return a model that computes as it is written, on the CPU, where files are made and compared."""
    if model.device.type == "cpu":
        return model.with_backend("torch")
    parts = copy.deepcopy(model.parts)
    return Model(model.recipe, parts, torch.device("cpu"), calibration=model.calibration)


def _refuse_unknown(out: Path, precision: str, data: str | Path | Dataset | None) -> None:
    """Raise UserError for a kind of file that there is not."""
    if out.suffix not in ENGINES:
        raise UserError(f"{out}: exported models are .onnx or .xml files: let the name end so")
    if precision not in get_args(FilePrecision):
        raise unknown("precision", precision, get_args(FilePrecision))
    if precision == "int8" and data is None:
        raise UserError("int8 is measured on pictures of the kind it is meant for: give data")


def _refuse_missing(out: Path, precision: str) -> None:
    """Raise UserError where a package is not installed that is needed in the end, before anything long."""
    extras = [out.suffix[1:] if out.suffix == ".onnx" else "openvino", *(["nncf"] if precision == "int8" else [])]
    missing = [name for extra in extras for name in _PACKAGES[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{out}: writing it in {precision} needs {' and '.join(missing)}: pip install 'gfocal[{','.join(extras)}]'"
        )


_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",), "nncf": ("nncf",)}
"""What each extra installs that writing a file needs."""


def _refuse_taken(proof: Path, out: Path) -> None:
    """Raise UserError where the certificate of another file would be lost."""
    try:
        files = json.loads(proof.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if out.name not in files:
        raise UserError(f"{proof}: is the certificate of {' and '.join(files)}: give {out.name} another name")


def _refuse_outside(model: Model, *, raw: bool) -> None:
    """Raise UserError where who loads the file would need a part that only the caller has."""
    for axis, spec in (("quality", model.recipe.quality), ("box", model.recipe.box)):
        if raw and is_outside(spec):
            raise UserError(f"the model's {axis} is from outside gfocal, {spec['name']!r}: export without raw")


def _refuse_unlike(certificate: Certificate, out: Path) -> None:
    """Raise UserError where a file that should compute the same does not."""
    if certificate.detections == 0:
        log.warning(
            "the model finds nothing in these pictures, so the certificate proves nothing: give data of its kind"
        )
    worst, matched = certificate.worst, certificate.matched
    if certificate.precision == "float32" and worst is not None and matched is not None and matched < LEAST_MATCHED:
        raise UserError(
            f"{out}: not written, because in {worst.runtime} only {100 * matched:.2f} % of the detections are "
            f"those of the model, and {100 * LEAST_MATCHED} % must be: report this with the model's recipe"
        )


@contextmanager
def _refusals(out: Path) -> Generator[None]:
    """Turn whatever goes wrong as a file is written into a UserError that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error
    except UserError:
        raise
    except Exception as error:  # what the converters of three packages cannot do has no common class
        raise UserError(f"{out}: this model cannot be exported ({first_line(error)})") from error


def _folder_for(out: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a scratch folder beside a file; UserError where it cannot be written there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}.", ignore_cleanup_errors=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error


def _name(data: str | Path | Dataset | None) -> str:
    """Return how a certificate calls the data."""
    if data is None:
        return "generated scenes"
    return str(data) if isinstance(data, str | Path) else "a data set"


def _for_ranges(
    model: Model, data: str | Path | Dataset | None, dataset: Dataset, *, split: str
) -> tuple[Dataset, Ranges]:
    """Return the pictures to measure ranges on: of the train split, where the data set has one that opens."""
    if isinstance(data, str | Path) and split != "train" and "train" in splits_of(data):
        try:
            dataset, split = open_for(model, data, "train"), "train"
        except UserError as error:  # many have the annotations of COCO whole, but only the pictures of val
            log.info("ranges for int8 are measured on split %s, as train does not open (%s)", split, error)
    return dataset, Ranges(split, len(measured_on(len(dataset))))


def _in_runtimes(path: Path) -> list[Side]:
    """Return the file in each runtime that is installed and can read it, and in the CPU's own precision of an .xml."""
    file = load_exported(path, device="cpu")
    files = [Side(file, file.engine.closest)]
    usual = precision_name(choose_precision(None, torch.device("cpu")))
    if path.suffix == ".xml" and usual != file.engine.closest:
        files.append(Side(file, usual))
    if path.suffix == ".onnx" and importlib.util.find_spec("openvino") is not None:
        try:
            engine = OpenVino(path, device="cpu")
            engine.ready(engine.closest)
            files.append(Side(ExportedModel(engine), engine.closest))
        except UserError as error:  # its reader of ONNX lacks some operators
            log.info("%s", error)
    return files
