"""Files that compute: exported models, run by ONNX Runtime or OpenVINO."""

from gfocal.exported.model import ExportedModel, is_exported, load_exported

__all__ = ["ExportedModel", "is_exported", "load_exported"]
