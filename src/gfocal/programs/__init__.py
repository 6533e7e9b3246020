"""Detectors as programs of PyTorch and of OpenVINO: what other runtimes are given."""
