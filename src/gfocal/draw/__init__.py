"""Pictures and pages: boxes, their edge distributions, reports."""
