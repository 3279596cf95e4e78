"""Names what is wrong: with this host, by looking at it, and with the cluster, by what the agent says."""

from __future__ import annotations

from tunrouter.doctor.checks import CHECKS, diagnose
from tunrouter.doctor.finding import Finding, Level
from tunrouter.doctor.patient import Known
from tunrouter.doctor.reports import told

__all__ = ["CHECKS", "Finding", "Known", "Level", "diagnose", "told"]
