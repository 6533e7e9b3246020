"""Files that other runtimes compute, and the proof that they are the model: ONNX, OpenVINO, certificates."""

from gfocal.exporting.certificate import Agreement, Certificate, Difference, Ranges
from gfocal.exporting.run import export

__all__ = ["Agreement", "Certificate", "Difference", "Ranges", "export"]
