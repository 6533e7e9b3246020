"""The audit of labels: annotations that a trained detector finds hard to believe, the most suspicious first."""

from __future__ import annotations

from gfocal.analysis.audit.page import write_page
from gfocal.analysis.audit.run import audit, audit_pairs
from gfocal.analysis.audit.suspicions import KINDS, Audit, Suspicion

__all__ = ["KINDS", "Audit", "Suspicion", "audit", "audit_pairs", "write_page"]
